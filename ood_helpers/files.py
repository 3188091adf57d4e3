"""Files that are there whole or not at all."""

import contextlib
import uuid


def write_whole(path, content):
    """Write bytes to a file in one step: whoever reads it sees the old one or the new one, and an interrupt leaves no half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")  # another machine may write to the same folder
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        with contextlib.suppress(OSError):  # gone already, or no folder to write to: nothing to tidy
            draft.unlink()
