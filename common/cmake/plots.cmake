# make plots: docs/results/ → docs/plots/*.svg.
include(${CMAKE_CURRENT_LIST_DIR}/verbs.cmake)

al_install_matplotlib()
al_run(${AL_VENV}/bin/python docs/plots.py)
