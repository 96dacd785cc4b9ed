"""Makes the folders beside this file: adapters of the networks in ``../pretrained`` as peft saves
them, at random, with what the networks then answer to the inputs there.

    pip install torch transformers peft
    python tests/goldens/adapters/make.py [folder]
"""

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
NETWORKS = HERE.parent / "pretrained"
# name: (class in Transformers, settings of peft)
CASES = {
    "llama": (
        "AutoModelForCausalLM",
        {"target_modules": ["q_proj", "v_proj", "down_proj"], "r": 2, "lora_alpha": 3},
    ),
    "gpt2": (
        "AutoModelForCausalLM",
        {"target_modules": ["c_attn", "c_fc"], "r": 2, "lora_alpha": 4, "fan_in_fan_out": True},
    ),
    "vit": (
        "AutoModelForImageClassification",
        {"target_modules": ["q_proj", "v_proj", "fc1", "projection"], "r": 2, "lora_alpha": 1},
    ),
    "clip_text": (
        "CLIPTextModelWithProjection",
        {"target_modules": ["q_proj", "k_proj", "v_proj"], "r": 2, "use_rslora": True}
        | {"rank_pattern": {"k_proj": 1}, "alpha_pattern": {"v_proj": 5}},
    ),
}


def network(name):
    import transformers

    return getattr(transformers, CASES[name][0]).from_pretrained(NETWORKS / name).eval()


def said(model, name):
    import torch

    case = np.load(NETWORKS / name / "case.npz")
    if "image" in case:
        found = model(pixel_values=torch.tensor(case["image"].transpose(0, 3, 1, 2)))
    else:
        found = model(input_ids=torch.tensor(case["tokens"]).long())
    out = found.logits if hasattr(found, "logits") else found.text_embeds
    return out.detach().numpy()


def answer(name, folder):
    """What a network says with the adapters of a folder."""
    import peft

    return said(peft.PeftModel.from_pretrained(network(name), folder).eval(), name)


def main():
    import peft
    import torch

    torch.manual_seed(0)
    for name, (_, settings) in CASES.items():
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else HERE) / name
        settings = peft.LoraConfig(init_lora_weights=False, **settings)
        model = peft.get_peft_model(network(name), settings).eval()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "lora_" in key:
                    parameter.copy_(0.3 * torch.randn_like(parameter))
        model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        config = folder / "adapter_config.json"
        about = {**json.loads(config.read_text()), "base_model_name_or_path": ""}
        config.write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")
        np.savez(folder / "case.npz", out=said(model, name))


if __name__ == "__main__":
    main()
