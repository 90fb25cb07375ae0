"""What the Space runs. The code is in proxybyte/, the model in model/; nothing else is fetched."""

from pathlib import Path

from proxybyte.hub_configs.demo.app import build_app, serve
from proxybyte.hub_configs.demo.model import DemoModel

HERE = Path(__file__).parent
NAME, COMPRESSORS = "", ()

named = [str(HERE / name) if (HERE / name).is_dir() else name for name in COMPRESSORS]
serve(build_app(DemoModel.load(HERE / "model", named), NAME), None, None)
