"""posezoo for torch.hub: one function per architecture, and `create_model`.

    torch.hub.load("org/posezoo", "uniformer_s_256x192", pretrained=True)

Every function takes `pretrained=False`, `tag=None` (the first one) and the model's arguments.
"""

dependencies = [
    "torch", "timm", "numpy", "PIL", "safetensors", "huggingface_hub", "filelock", "tqdm", "click",
]  # fmt: skip


def create_model(name, pretrained=False, **model_args):
    """Build any posezoo model by name: architecture[.tag], hf-hub:org/repo, local-dir:path."""
    import posezoo

    return posezoo.create_model(name, pretrained=pretrained, **model_args)


def _entrypoint(architecture, summary):
    def build(pretrained=False, *, tag=None, **model_args):
        name = f"{architecture}.{tag}" if tag else architecture
        return create_model(name, pretrained=pretrained, **model_args)

    build.__name__ = build.__qualname__ = architecture
    build.__doc__ = summary
    return build


def _summary(cfg):
    size = f"{cfg.input.size[0]}x{cfg.input.size[1]}"
    weights = "" if cfg.has_weights else f" No weights: {cfg.source.unavailable}."
    return f"{cfg.architecture}: {cfg.description} ({cfg.dataset}, input {size}).{weights}"


try:
    import posezoo as _posezoo
except ModuleNotFoundError:  # torch.hub checks `dependencies` next and names what is missing
    pass
else:
    for _name in _posezoo.list_models():
        globals()[_name] = _entrypoint(_name, _summary(_posezoo.get_pretrained_cfg(_name)))
