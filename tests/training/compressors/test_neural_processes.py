"""Coding split over processes: the same codes as in one."""

import os
import subprocess
import sys

from proxybyte.training.compressors.neural import NeuralCompressor, NeuralSettings
from proxybyte.training.compressors.neural.processes import encode_over_processes
from proxybyte.training.compressors.protocol import CannotEncode

SCRIPT = """
import sys
from pathlib import Path
from accelerate import PartialState
from proxybyte.training.compressors import load_compressor
from proxybyte.training.compressors.neural.processes import encode_over_processes
state = PartialState(cpu=True)
documents = [path.read_bytes() for path in sorted(Path(sys.argv[1], "text").iterdir())]
codes = encode_over_processes(load_compressor(sys.argv[1] + "/m1"), documents)
lines = [str(code if isinstance(code, Exception) else code.tolist()) for code in codes]
Path(sys.argv[1], f"codes-{state.process_index}-of-{state.num_processes}").write_text("\\n".join(lines))
"""


def test_two_processes_give_the_codes_of_one(small_lm, held_out, tmp_path):
    compressor = NeuralCompressor(small_lm, NeuralSettings())
    compressor.save(tmp_path / "m1")
    documents = [held_out[0][:3000], b"", os.urandom(400), held_out[1][:1000], held_out[2][:2000]]
    (tmp_path / "text").mkdir()
    for number, document in enumerate(documents):
        (tmp_path / "text" / str(number)).write_bytes(document)
    (tmp_path / "script.py").write_text(SCRIPT)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(tmp_path / "script.py")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *launch, str(tmp_path)], check=True, capture_output=True, env=environment)
    alone = encode_over_processes(compressor, documents)
    assert isinstance(alone[2], CannotEncode)
    expected = "\n".join(str(code if isinstance(code, Exception) else code.tolist()) for code in alone)
    assert [(tmp_path / f"codes-{rank}-of-2").read_text() for rank in range(2)] == [expected] * 2
