"""Scores of restorers beside those of Tables 1 to 5: `python -m eval.restoration`, the same as `iptv2-eval restoration`.

The protocol of each benchmark is in `eval/README.md`.
"""

from iptv2_diffusion.cli.evaluate_restoration import main

if __name__ == "__main__":
    main()
