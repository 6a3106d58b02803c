"""What a model costs, as one HTML file to look at: no server, no network.

The charts are plotly's, whose library is written into the file once; the figures are in it as
JSON, from which the scripts beside this module draw everything.
"""

from graphopt.cost.page.document import cost_page

__all__ = ["cost_page"]
