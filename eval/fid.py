"""FID, sFID, IS, precision and recall of generated images: `python -m eval.fid`, the same as `iptv2-eval generation`.

The definitions are in `eval/README.md`.
"""

from iptv2_diffusion.cli.evaluate_generation import main

if __name__ == "__main__":
    main()
