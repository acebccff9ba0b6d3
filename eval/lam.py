"""Local Attribution Maps of restorers (Figure 2): `python -m eval.lam`.

The method and its constants are in `eval/README.md`.
"""

from iptv2_diffusion.cli.lam import main

if __name__ == "__main__":
    main()
