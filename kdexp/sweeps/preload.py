"""All of kdexp that is installed, as it is when this is imported.

The jobs of a sweep are forked from a process that has imported it. So they all run the code that their records name,
whoever edits the files meanwhile.
"""

import gc
from contextlib import suppress
from importlib import import_module
from pkgutil import walk_packages

import kdexp
from kdexp.config.identity import own_source

gc.disable()  # none of what is imported is garbage: to find that out takes the collector more than a second
for module in walk_packages(kdexp.__path__, "kdexp."):
    with suppress(ImportError):  # packages of an extra, or private names of Lightning's, that are not there
        import_module(module.name)
own_source()
gc.freeze()  # nor does it become any: a job that went through it all would copy it
gc.enable()
