"""All of kdexp, as it is when this is imported.

The jobs of a sweep are forked from a process that has imported it. So they all run the code that their records name,
whoever edits the files meanwhile.
"""

from importlib import import_module
from pkgutil import walk_packages

import kdexp
from kdexp.config import own_source

for module in walk_packages(kdexp.__path__, "kdexp."):
    import_module(module.name)
own_source()
