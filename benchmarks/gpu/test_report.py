from __future__ import annotations

from benchmarks.gpu import report


def test_the_page_is_what_the_results_say() -> None:
    assert report.PAGE.read_text() == report.page(report.records()), (
        "run: python -m benchmarks.gpu.report"
    )


def test_a_run_is_told_of_with_its_figures() -> None:
    run = {
        "time": "2026-01-01T00:00:00+00:00",
        "commit": "abc",
        "device": "Some GPU",
        "tests": {
            "counts": {"passed": 1, "failed": 0, "skipped": 0},
            "passed": ["test_parity::test_focal_loss[cuda-shape0-dtype0]"],
        },
        "figures": [
            {
                "what": "focal loss, forward and backward",
                "peer": peer,
                "size": "(20, 7)",
                "dtype": "float32",
                "seconds": seconds,
            }
            for peer, seconds in (("fastmtl native", 1e-5), ("eager", 4e-5), ("other", None))
        ]
        + [
            {
                "what": "training step",
                "peer": f"fastmtl native, {how}",
                "size": "B 20",
                "dtype": "float32",
                "seconds": 1e-5,
                "launches": launches,
            }
            for how, launches in (("eager", 70), ("CUDA graph", 1))
        ],
    }
    page = report.page([run])
    assert "| `focal_loss` | CUDA | Some GPU, commit abc: 1 parity tests passed, timed |" in page
    assert "| `focal_loss` | Triton | never |" in page
    assert "| (20, 7) | float32 | eager | 40.0 |  | 4.00 |" in page
    assert "| (20, 7) | float32 | other | out of memory |" in page
    assert "| `task_gru_layer` | Triton | no kernel |" in page
    assert "| B 20 | float32 | fastmtl native, CUDA graph | 10.0 |  | 1.00 | 1 |" in page
