# make site: the Markdown and what the emulator records of each kernel → build/site. With -DTHEN=
# site-serve it is shown, with site-look looked at in a browser.
include(${CMAKE_CURRENT_LIST_DIR}/verbs.cmake)

al_setup(BACKEND emulator)
al_install_site()
al_list_stages(stages)
al_build(emulator ${stages})
al_run(${AL_VENV}/bin/python docs/site/build_site.py --programs build/emulator/bin)
al_run(${AL_VENV}/bin/python docs/site/check.py build/site)
message(STATUS "The site is in build/site: open build/site/index.html, or run 'make site-serve', which the search needs")

if(THEN STREQUAL "site-serve")
  message(STATUS "http://127.0.0.1:8000 shows it until you press Ctrl-C")
  al_run(${AL_VENV}/bin/python -m http.server --bind 127.0.0.1 --directory build/site 8000)
elseif(THEN STREQUAL "site-look")
  file(GLOB playwright ${AL_SITE_PACKAGES}/playwright/__init__.py)
  if(NOT playwright)
    al_install_python_packages("playwright, which drives a browser" ${AL_PYPI_PLAYWRIGHT_SIZE}
                               ${AL_PYPI_PLAYWRIGHT} DEPENDENCIES)
  endif()
  al_run(${AL_VENV}/bin/python docs/site/look.py build/site --shots build/site-shots)
endif()
