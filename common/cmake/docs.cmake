# make docs: draws the pictures, writes tables and snippets into the Markdown anew.
include(${CMAKE_CURRENT_LIST_DIR}/verbs.cmake)

al_run(python3 docs/pictures.py)
al_run(python3 docs/weave.py)
