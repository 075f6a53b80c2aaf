"""Everything that is drawn from records."""

import logging

# Where the home folder cannot be written, matplotlib says in two lines that it takes a temporary one, which will do.
logging.getLogger("matplotlib").addFilter(lambda record: "MPLCONFIGDIR" not in (told := record.getMessage())
                                          and not told.startswith("mkdir -p failed"))
