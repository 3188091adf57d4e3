"""What runs before a student's JupyterLab: copy the course into their home, limit their memory, then start the server.

    python student.py COMMAND ...     copies, limits, and becomes COMMAND
    python student.py                 copies only

It runs as the student, so everything that it makes is theirs. Files of the course that they do not have yet are added; a file
that is there is theirs and stays as it is. Whoever wants a fresh notebook renames their own and starts the server again.
"""

import os
import resource
import shutil
import sys
from pathlib import Path

COURSE = Path(__file__).resolve().parents[2]
FOLDERS = ("notebooks", "results")  # the notebooks read the tables of results/


def copy_missing(course, target):
    """Copy the course's files that `target` lacks; returns their paths below `target`. Hidden files are left out."""
    added = []
    for folder in FOLDERS:
        for source in sorted((course / folder).rglob("*")):
            path = source.relative_to(course)
            if source.is_dir() or any(part.startswith(".") for part in path.parts) or (target / path).exists():
                continue
            draft = target / path.with_name(f".{path.name}.part")  # an interrupt leaves no half notebook
            draft.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, draft)
            draft.replace(target / path)
            added.append(path)
    return added


def limit_memory(size):
    """Let this process, and each that it starts, take at most `size` bytes for its data: a cell that wants more gets an error."""
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def main(command):
    copy_missing(COURSE, Path.home() / "course")
    if command:
        if "MEM_LIMIT" in os.environ:  # JupyterHub says here what its option `Spawner.mem_limit` holds
            limit_memory(int(os.environ["MEM_LIMIT"]))
        os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
