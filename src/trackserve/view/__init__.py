"""The event display in the browser: an event and its tracks as one page, or from a live server.

scene     hits, tracks and truth of an event as the columns that the page draws
page      a page that needs nothing else: three.js, the script and the events inside
live      the same page from a server on this machine, an event at a time
phoenix   the same tracks in the format of HSF's event display Phoenix

three.js (the folder `three`, unchanged, with its licence) draws; nothing is fetched from elsewhere.
"""
