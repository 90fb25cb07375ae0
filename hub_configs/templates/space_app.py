"""What the Space runs. The code is in proxybyte/, the model in model/; nothing else is fetched."""

import sys
from pathlib import Path

sys.dont_write_bytecode = True  # the folder stays what was uploaded, so that it can be written anew

from proxybyte.hub_configs.demo.app import build_app, serve  # noqa: E402
from proxybyte.hub_configs.demo.model import DemoModel  # noqa: E402

HERE = Path(__file__).parent
NAME, COMPRESSORS = "", ()

named = [str(HERE / name) if (HERE / name).is_dir() else name for name in COMPRESSORS]
serve(build_app(DemoModel.load(HERE / "model", named), NAME), None, None)
