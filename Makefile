# Every rule is one CMake call; what it does is in common/cmake/.

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
	@cmake -DDIR="$(DIR)" -DLAB="$(LAB)" -DSEED="$(SEED)" -DJOBS="$(JOBS)" -DOUT="$(OUT)" -DAGAIN="$(AGAIN)" -DSINGLE="$(SINGLE)" -P common/cmake/grade.cmake

clean:
	@cmake -E rm -rf build/cuda build/emulator build/emulator-asan
