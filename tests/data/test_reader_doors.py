"""A picture from a stranger reads no other file of the computer, asks no server and runs no program."""

import os
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from data_toys import smooth_image, write
from scipy.io import netcdf_file

from foveate.data.place import named_system
from foveate.data.readers import open_image
from foveate.errors import ConfigError, FoveateError, UnsupportedImageError
from foveate.geometry import Window
from foveate.tiff.raster import quiet

SECRET = bytes(range(256)) * 16


def vrt_of(band: str, side: int = 64) -> str:
    return f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}">{band}</VRTDataset>'


def simple(source: str, element: str = "SimpleSource") -> str:
    inside = f"<{element}>{source}<SourceBand>1</SourceBand></{element}>"
    return f'<VRTRasterBand dataType="Byte" band="1">{inside}</VRTRasterBand>'


RAW = """<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">
<SourceFilename relativeToVRT="{relative}">{path}</SourceFilename><PixelOffset>1</PixelOffset>
<LineOffset>64</LineOffset></VRTRasterBand>"""
PYTHON = """<VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand">
<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage><PixelFunctionCode><![CDATA[
def f(*a, **k): open("{path}", "w")
]]></PixelFunctionCode></VRTRasterBand>"""
WMS = """<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:{port}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service>
<DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>1</UpperLeftY><LowerRightX>1</LowerRightX><LowerRightY>0</LowerRightY>
<TileLevel>1</TileLevel><TileCountX>1</TileCountX><TileCountY>1</TileCountY></DataWindow>
<BlockSizeX>64</BlockSizeX><BlockSizeY>64</BlockSizeY><BandsCount>1</BandsCount></GDAL_WMS>"""
PDS4 = """<?xml version="1.0"?><Product_Observational xmlns="http://pds.nasa.gov/pds4/pds/v1"><File_Area_Observational>
<File><file_name>{name}</file_name></File><Array_2D_Image><offset unit="byte">0</offset><axes>2</axes>
<axis_index_order>Last Index Fastest</axis_index_order>
<Element_Array><data_type>UnsignedByte</data_type></Element_Array>
<Axis_Array><axis_name>Line</axis_name><elements>64</elements><sequence_number>1</sequence_number></Axis_Array>
<Axis_Array><axis_name>Sample</axis_name><elements>64</elements><sequence_number>2</sequence_number></Axis_Array>
</Array_2D_Image></File_Area_Observational></Product_Observational>"""
ENVI = "ENVI\nsamples = 64\nlines = 64\nbands = 1\ndata type = 1\ninterleave = bsq\n"


@pytest.fixture
def secret(tmp_path):
    """A file that no picture may show, beside the folder of what was sent; and one within, as raw bytes."""
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / "notes").write_bytes(SECRET)
    (tmp_path / "secret").write_bytes(SECRET)
    write(tmp_path / "secret.tif", smooth_image(1, 64, 64, np.uint8))
    return tmp_path / "secret"


@pytest.fixture
def asked():
    """The port of a server, and what was asked of it."""
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    requests.append(connection.recv(100))

        threading.Thread(target=listen, daemon=True).start()
        yield server.getsockname()[1], requests
        server.shutdown(socket.SHUT_RDWR)


def refused(path):
    """Whether the image is refused, at the latest when it is read, by an error that names it."""
    with pytest.raises(FoveateError) as error, open_image(path) as reader:
        reader.read(Window.of(reader.size))
    assert path.name in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "name", ["holiday.png", "raw.tif", "scene.jp2", "scene.jpg", "scene.xml", "scene.lbl", "scene", "a.vrt"]
)
def test_a_description_under_another_name_is_not_followed(secret, asked, name, monkeypatch):
    port, requests = asked
    monkeypatch.setenv("GDAL_VRT_ENABLE_RAWRASTERBAND", "YES")
    monkeypatch.setenv("GDAL_VRT_RAWRASTERBAND_ALLOWED_SOURCE", "ALL")
    path = secret.parent / "sent" / name
    texts = [
        vrt_of(RAW.format(relative=0, path=secret)),
        vrt_of(RAW.format(relative=1, path="notes")),
        vrt_of(simple(f"<SourceFilename>/vsicurl/http://127.0.0.1:{port}/a.tif</SourceFilename>")),
        WMS.format(port=port),
        PDS4.format(name="notes"),
    ]
    for text in texts:
        path.write_text(text)
        refused(path)
    assert requests == []


def test_a_description_says_that_it_is_a_text(tmp_path):
    (tmp_path / "holiday.png").write_text(vrt_of(""))
    assert "it is text: <VRTDataset" in refused(tmp_path / "holiday.png")


def test_bytes_beside_a_header_are_read_only_under_a_name_for_that(secret):
    folder = secret.parent / "sent"
    for name in ("raw.tif", "raw", "raw.img"):
        (folder / name).write_bytes(SECRET)
        (folder / f"{name}.hdr").write_text(ENVI)
    assert "GDAL cannot open" in refused(folder / "raw.tif")
    refused(folder / "raw")
    with open_image(folder / "raw.img") as reader:
        assert np.array_equal(reader.read(Window(0, 0, 1, 64))[0, 0], np.arange(64))


SOURCES = {
    "absolute": "<SourceFilename>{secret}.tif</SourceFilename>",
    "above": '<SourceFilename relativeToVRT="1">../secret.tif</SourceFilename>',
    "through a link": '<SourceFilename relativeToVRT="1">link.tif</SourceFilename>',
    "in small letters": "<sourcefilename>{secret}.tif</sourcefilename>",
    "behind a comment": '<SourceFilename relativeToVRT="1">a.tif<!-- -->/../../secret.tif</SourceFilename>',
    "with an element as the attribute": "<SourceFilename><relativeToVRT>1</relativeToVRT>../a</SourceFilename>",
    "with entities": '<SourceFilename relativeToVRT="1">&#46;&#46;/secret.tif</SourceFilename>',
    "a VRT in the text": "<SourceFilename>&lt;VRTDataset/&gt;</SourceFilename>",
    "a driver's own words": "<SourceFilename>GTIFF_DIR:1:{secret}.tif</SourceFilename>",
    "no picture": '<SourceFilename relativeToVRT="1">notes</SourceFilename>',
    "a server": "<SourceFilename>/vsicurl/http://127.0.0.1:{port}/a.tif</SourceFilename>",
    "nested": '<SourceFilename relativeToVRT="1">inner.vrt</SourceFilename>',
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_vrt_reads_pictures_below_its_folder_only(secret, asked, source):
    port, requests = asked
    folder = secret.parent / "sent"
    write(folder / "a.tif", smooth_image(1, 64, 64, np.uint8))
    (folder / "link.tif").symlink_to(f"{secret}.tif")
    (folder / "inner.vrt").write_text(vrt_of(simple(f"<SourceFilename>{secret}.tif</SourceFilename>")))
    (folder / "scene.vrt").write_text(vrt_of(simple(source.format(secret=secret, port=port))))
    refused(folder / "scene.vrt")
    assert requests == []


def test_a_source_cannot_be_an_attribute(secret):
    path = secret.parent / "sent" / "scene.vrt"
    path.write_text(
        vrt_of(f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource SourceFilename="{secret}.tif"/></VRTRasterBand>')
    )
    assert "not allowed in a VRT" in refused(path)


def test_a_program_in_a_vrt_is_never_run(tmp_path, monkeypatch):
    monkeypatch.setenv("GDAL_VRT_ENABLE_PYTHON", "YES")
    path = tmp_path / "scene.vrt"
    path.write_text(vrt_of(PYTHON.format(path=tmp_path / "it-ran")))
    assert "not allowed in a VRT" in refused(path) or "never run" in refused(path)
    assert not (tmp_path / "it-ran").exists()


def test_entities_in_a_vrt_are_refused(tmp_path):
    path = tmp_path / "scene.vrt"
    path.write_text(f'<!DOCTYPE a [<!ENTITY b "c">]>{vrt_of("")}')
    assert "declares entities" in refused(path)


def test_a_vrt_of_pictures_below_its_folder_is_read(tmp_path):
    image = smooth_image(3, 64, 80, np.uint8)
    (tmp_path / "tiles").mkdir()
    write(tmp_path / "tiles" / "a.tif", image)
    rasterio.shutil.copy(tmp_path / "tiles" / "a.tif", tmp_path / "scene.vrt", driver="VRT")
    (tmp_path / "outer.vrt").write_text((tmp_path / "scene.vrt").read_text().replace("tiles/a.tif", "scene.vrt"))
    for name in ("scene.vrt", "outer.vrt"):
        with open_image(tmp_path / name) as reader:
            assert np.array_equal(reader.read(Window.of(reader.size)), image)


def test_the_user_allows_other_sources(secret, monkeypatch):
    path = secret.parent / "sent" / "scene.vrt"
    path.write_text(vrt_of(simple(f"<SourceFilename>{secret}.tif</SourceFilename>")))
    assert "FOVEATE_VRT_SOURCES" in refused(path)
    monkeypatch.setenv("FOVEATE_VRT_SOURCES", str(secret.parent))
    with open_image(path) as reader, open_image(f"{secret}.tif") as source:
        assert np.array_equal(reader.read(Window.of(reader.size)), source.read(Window.of(source.size)))


def test_the_user_allows_other_drivers(tmp_path, monkeypatch):
    (tmp_path / "scene.xyz").write_text("".join(f"{x} {y} {x + y}\n" for y in range(4) for x in range(4)))
    refused(tmp_path / "scene.xyz")
    monkeypatch.setenv("FOVEATE_GDAL_DRIVERS", "XYZ, nothing")
    with open_image(tmp_path / "scene.xyz") as reader:
        assert reader.format == "XYZ"


def test_a_file_of_several_images_names_them(tmp_path):
    with netcdf_file(tmp_path / "scene.nc", "w") as file:
        for axis in "yx":
            file.createDimension(axis, 20)
        for name in ("first", "second"):
            file.createVariable(name, "f4", ("y", "x"))[:] = 1
    assert "It is HDF5 or netCDF" in refused(tmp_path / "scene.nc")
    # In a process of its own: which drivers GDAL has is settled once.
    environment = {name: value for name, value in os.environ.items() if name != "GDAL_SKIP"}
    done = subprocess.run(
        [sys.executable, "-m", "foveate", "info", str(tmp_path / "scene.nc")],
        env={**environment, "FOVEATE_GDAL_DRIVERS": "netCDF", "COLUMNS": "1000"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = " ".join(done.stderr.split())
    assert done.returncode == 2
    assert "holds several images; gdal_translate copies one: " in said
    assert "scene.nc:first" in said
    assert "scene.nc:second" in said


@pytest.mark.parametrize("suffix", [".ovr", ".msk"])
def test_what_lies_beside_a_picture_is_a_picture(secret, suffix):
    path = write(secret.parent / "sent" / "a.tif", smooth_image(1, 64, 64, np.uint8))
    path.with_name(f"a.tif{suffix}").write_text(vrt_of(RAW.format(relative=0, path=secret), side=32))
    assert "is not a TIFF, but overviews and masks of a.tif must be" in refused(path)


@pytest.mark.parametrize("where", ["beside", "inside"])
def test_overviews_of_another_name_are_not_followed(secret, where):
    path = write(secret.parent / "sent" / "a.tif", smooth_image(1, 64, 64, np.uint8))
    if where == "inside":
        quiet()
        with rasterio.open(path, "r+") as file:
            file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=f"{secret}.tif")
    else:
        path.with_name("a.tif.aux.xml").write_text(
            f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{secret}.tif</MDI></Metadata>'
            "</PAMDataset>"
        )
    message = refused(path)
    assert "another file for the overviews" in message or "takes its overviews from" in message


def test_a_vrt_on_a_server_is_refused():
    with pytest.raises(UnsupportedImageError, match="opened only from the local disk"):
        open_image("/vsizip/scene.zip/scene.vrt")


def test_the_command_line_has_none_of_the_drivers_that_follow_files():
    code = "import foveate.cli.app, rasterio\nwith rasterio.Env() as env: print(*env.drivers())"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"GTiff", "COG", "VRT", "PNG", "JPEG"} <= set(names)
    assert not {"WMS", "WMTS", "PDS4", "ISIS3", "HDF5", "MRF", "HTTP"} & set(names)


def test_the_name_of_a_system_in_geojson_is_not_followed(tmp_path, asked):
    port, requests = asked
    (tmp_path / "a.prj").write_text(rasterio.CRS.from_epsg(32633).to_wkt())
    for name in (
        f"http://127.0.0.1:{port}/crs",
        str(tmp_path / "a.prj"),
        f"+proj=longlat +nadgrids=http://127.0.0.1:{port}",
    ):
        with pytest.raises(ConfigError, match="names an unknown coordinate reference system"):
            named_system({"crs": {"properties": {"name": name}}}, tmp_path / "a.geojson")
    assert requests == []
    known = ("EPSG:32633", "urn:ogc:def:crs:EPSG::32633", "http://www.opengis.net/def/crs/EPSG/0/32633")
    for name in (*known, rasterio.CRS.from_epsg(32633).to_wkt()):
        assert named_system({"crs": {"properties": {"name": name}}}, tmp_path).to_epsg() == 32633
    urn = {"crs": {"properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}}
    assert named_system(urn, tmp_path) == rasterio.CRS.from_user_input("OGC:CRS84")


def test_a_folder_of_images_is_no_image(tmp_path):
    (tmp_path / "scenes").mkdir()
    with pytest.raises(UnsupportedImageError, match=r"scenes\. It is a folder, but no Zarr .* give the images in it"):
        open_image(tmp_path / "scenes")
