"""The instruction sets that this CPU has, by the names that oneDNN restricts itself to."""

from pathlib import Path

# ONEDNN_MAX_CPU_ISA and the flag of /proc/cpuinfo without which a CPU has no such level
_LEVELS = {
    "AVX2": "avx2",
    "AVX512_CORE": "avx512bw",
    "AVX512_CORE_VNNI": "avx512_vnni",
    "AVX512_CORE_BF16": "avx512_bf16",
    "AVX512_CORE_AMX": "amx_int8",
}


def levels() -> list[str]:
    """Return the levels of this CPU, the lowest first; none on another architecture.

    The highest, which is that without a restriction, is among them only if there is no other.
    """
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return []
    found = [level for level, flag in _LEVELS.items() if flag in flags]
    return found[:-1] or found
