# Every rule is one CMake call; what it does is in common/cmake/. grade has a second line, for its
# exit code is a verdict, and a CMake script has no other end than 0 and an error of its own.

STAGES := $(wildcard [0-9][0-9]_*)
cmake := @cmake -DARGS="$(ARGS)"

.PHONY: help ladder test bench results sweep profile docs plots site site-serve site-look format clean \
        lab lab-watch grade $(STAGES)

help:
	@cmake -E cat common/cmake/help.txt

ladder docs plots site format:
	$(cmake) -P common/cmake/$@.cmake

$(STAGES):
	$(cmake) -DSTAGE=$@ -P common/cmake/chapter.cmake

test bench results sweep profile:
	$(cmake) -DSTAGE=$(STAGE) -P common/cmake/$@.cmake

site-serve site-look: site
	$(cmake) -DTHEN=$@ -P common/cmake/site.cmake

lab:
	@cmake -DLAB="$(LAB)" -DHINT="$(HINT)" -DRESET="$(RESET)" -DGPU="$(GPU)" -DSEED="$(SEED)" -P common/cmake/lab.cmake

lab-watch:
	@cmake -DLAB="$(LAB)" -DGPU="$(GPU)" -DSEED="$(SEED)" -DWATCH=1 -P common/cmake/lab.cmake

grade:
	@cmake -DDIR="$(DIR)" -DLAB="$(LAB)" -P common/cmake/grade.cmake
	@python3 common/lab/grade.py "$(DIR)" $(if $(LAB),--lab "$(LAB)") $(if $(SEED),--seed "$(SEED)") \
	   $(if $(JOBS),--jobs "$(JOBS)") $(if $(OUT),--out "$(OUT)") $(if $(AGAIN),--again) $(if $(SINGLE),--single)

clean:
	@cmake -E rm -rf build/cuda build/emulator build/emulator-asan
