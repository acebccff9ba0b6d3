from iptv2_diffusion.cli.train import main

if __name__ == "__main__":
    main()
