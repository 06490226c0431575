from __future__ import annotations

from fastmtl import demo


def test_it_times_trains_and_compares(call, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "TIMED", "synthetic:disaster?clips=60&frames=3&features=8")
    monkeypatch.setattr(
        demo, "TRAINED", "synthetic:disaster-multimodal?clips=80&frames=3&video=8&text=6&audio=5"
    )
    code, out, err = call("demo", "--out", tmp_path, "--threads", 1)
    assert (code, err) == (0, "")
    for told in ("plain step", "GradNorm", "ridge regression", "hgfn, dmtl", "mAP"):
        assert told in out
    page = tmp_path / "report.html"
    assert str(page) in out.replace("\n", "")
    assert "hgfn, dmtl" in page.read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.iterdir()} == {*demo.BALANCERS, page.name}


def test_the_networks_that_are_timed_are_the_same(monkeypatch):
    monkeypatch.setattr(demo, "TIMED", "synthetic:disaster?clips=60&frames=3&features=8")
    for timing in demo.timings():
        assert timing.difference < 1e-5
        assert min(timing.plain, timing.fused) > 0
