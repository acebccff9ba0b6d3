"""The sizes of DiT (Peebles & Xie 2023, Table 1), which Table 6 compares with. Standard library only."""

DITS: dict[str, dict] = {  # parameters for 1000 classes
    # Ours, for 128-pixel pictures (4x16x16 latents): of the cost of IPTV2-Ti-16. 4.4 M
    "DiT-Ti/2": {"sample_size": 16, "num_layers": 7, "num_attention_heads": 3, "attention_head_dim": 60},
    "DiT-S/2": {"num_layers": 12, "num_attention_heads": 6, "attention_head_dim": 64},  # 32.9 M
    "DiT-B/2": {"num_layers": 12, "num_attention_heads": 12, "attention_head_dim": 64},  # 130.3 M
    "DiT-L/2": {"num_layers": 24, "num_attention_heads": 16, "attention_head_dim": 64},  # 457.8 M
    "DiT-XL/2": {"num_layers": 28, "num_attention_heads": 16, "attention_head_dim": 72},  # 674.8 M
}
