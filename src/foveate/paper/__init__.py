"""What only the reproduction of the paper (Jin et al., arXiv 2007.15124) needs; registries and a command import it."""
