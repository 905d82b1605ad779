"""The page that shows what a finished run did: report/index.html.

`gather` reads the figures from the run, `pictures` reads thumbnails from the input, `plots` draws, `page` renders.
"""
