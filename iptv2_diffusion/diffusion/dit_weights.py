"""DiT's weights as diffusers stores them, `DiTTransformer2DModel` (facebook/DiT-XL-2-256), in our DiT.

diffusers runs them with frequencies of the timestep that end at 1/10000 itself and an epsilon of 1e-5 in the second norm.
Ours are those of DiT's own code, with which the published weights were trained: the figures of the two differ a little.
"""

from typing import Any

from iptv2_diffusion.diffusion.dit import DiTDenoiser

# The published weights have the older name: Transformer2DModel was divided by its uses later.
CLASSES = ("DiTTransformer2DModel", "Transformer2DModel")
FIXED = {  # what is the same in every DiT
    "norm_type": "ada_norm_zero",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "norm_elementwise_affine": False,
}
SAME = ("sample_size", "in_channels", "patch_size", "num_layers", "num_attention_heads", "attention_head_dim")
WITHIN = ".norm1.emb."  # a layer's own copy of the embedding
EMBEDDING = {
    "timestep_embedder.linear_1.weight": "time_embedding.mlp.0.weight",
    "timestep_embedder.linear_1.bias": "time_embedding.mlp.0.bias",
    "timestep_embedder.linear_2.weight": "time_embedding.mlp.2.weight",
    "timestep_embedder.linear_2.bias": "time_embedding.mlp.2.bias",
    "class_embedder.embedding_table.weight": "label_embedding.weight",
}


def from_diffusers(theirs: Any) -> DiTDenoiser:
    """Of a `DiTTransformer2DModel`. ValueError for one that is no DiT, and where its layers' embeddings differ."""
    config = theirs.config
    if wrong := [f"{name} {config[name]}, not {value}" for name, value in FIXED.items() if config[name] != value]:
        raise ValueError(f"expected DiT's transformer, got one with {', '.join(wrong)}")
    state: dict[str, Any] = {}
    for name, tensor in theirs.state_dict().items():
        _, own, part = name.partition(WITHIN)
        if not state.setdefault(EMBEDDING[part] if own else f"transformer.{name}", tensor).equal(tensor):
            raise ValueError(f"expected the same embedding of timestep and label in every layer, {name} differs")
    ours = DiTDenoiser(
        **{name: config[name] for name in SAME},
        out_channels=theirs.out_channels,
        num_classes=config["num_embeds_ada_norm"],
    )
    ours.load_state_dict(state)
    return ours.eval()
