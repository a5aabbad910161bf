"""What a command is at when it touches a file."""

SCORES = "tests.scoring"  # the event of a method that is about to predict or to label
PHASES = {
    SCORES: "scoring",
    "checkpoints": "checkpoint write",
    "log.jsonl": "first step",
    "/data/": "data",
    "images.npy": "data",
    "/looks/": "scoring",
    "snapshots": "scoring",
    "probes.jsonl": "scoring",
    "labels.json.gz": "labels",
    "model.pt": "model",
    "backbone.safetensors": "model",
    "/runs/": "record write",
    "/stages/": "chain",
    "/batch/": "batch",
}


def phase_of(path: str) -> str:
    return next((phase for part, phase in PHASES.items() if part in path), "output")
