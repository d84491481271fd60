// What a submission might try: hostile WHAT [ARGUMENT]. For contained_test.py.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int failed(const char* what) {
  printf("%s: %s\n", what, strerror(errno));
  return 3;
}

int main(int argc, char** argv) {
  const char* what = argc > 1 ? argv[1] : "";
  const char* argument = argc > 2 ? argv[2] : "";
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (!strcmp(what, "loop")) {
    for (volatile int i = 0;; ++i) {
    }
  }
  if (!strcmp(what, "burst")) {  // of at most 200 children that stay
    int n = 0;
    while (n < 200) {
      const pid_t child = fork();
      if (child < 0) break;
      if (child == 0) {
        for (;;) pause();
      }
      ++n;
    }
    printf("%d\n", n);
    usleep(300000);
    return 0;
  }
  if (!strcmp(what, "detach")) {  // a daemon with a session of its own
    if (fork() == 0) {
      setsid();
      if (fork() == 0) execl("/bin/sleep", "sleep", argument, (char*)NULL);
      _exit(0);
    }
    usleep(200000);
    return 0;
  }
  if (!strcmp(what, "crash")) raise(SIGSEGV), *(volatile int*)0 = 1;
  if (!strcmp(what, "flood")) {  // a gigabyte
    static char text[1 << 16];
    memset(text, 'x', sizeof text);
    for (int i = 0; i < 1 << 14; ++i) {
      if (write(i % 2 + 1, text, sizeof text) < 0) return 3;
    }
    return 0;
  }
  if (!strcmp(what, "memory")) {  // at most 4 GiB
    for (int i = 0; i < 64; ++i) {
      char* block = malloc(64 << 20);
      if (!block) return failed("malloc");
      memset(block, 1, 64 << 20);
    }
    return 0;
  }
  if (!strcmp(what, "read")) {
    const int file = open(argument, O_RDONLY);
    if (file < 0) return failed("open");
    char text[100] = "";
    if (read(file, text, sizeof text - 1) < 0) return failed("read");
    printf("%s\n", text);
    return 0;
  }
  if (!strcmp(what, "write")) {
    const int file = open(argument, O_WRONLY | O_CREAT, 0644);
    return file < 0 ? failed("open") : 0;
  }
  if (!strcmp(what, "fill")) {  // at most 1 GiB in files of 16 MiB
    static char text[16 << 20];
    for (int i = 0; i < 64; ++i) {
      char name[40];
      snprintf(name, sizeof name, "part%d", i);
      const int file = open(name, O_WRONLY | O_CREAT, 0644);
      if (file < 0 || write(file, text, sizeof text) < 0) return failed("write");
      close(file);
      usleep(20000);
    }
    return 0;
  }
  if (!strcmp(what, "large")) {  // one file of 1 GiB
    static char text[16 << 20];
    const int file = open("large", O_WRONLY | O_CREAT, 0644);
    for (int i = 0; i < 64; ++i) {
      if (write(file, text, sizeof text) < 0) return failed("write");
    }
    return 0;
  }
  if (!strcmp(what, "litter")) {  // links and pipes for whoever looks into the folder next
    printf("%d %d %d\n", symlink("/etc/passwd", "link"), mkfifo("pipe", 0600), mkdir("closed", 0));
    return 0;
  }
  if (!strcmp(what, "connect")) {
    const int s = socket(AF_INET, SOCK_STREAM, 0);
    if (s < 0) return failed("socket");
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argument))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return connect(s, (struct sockaddr*)&to, sizeof to) < 0 ? failed("connect") : 0;
  }
  if (!strcmp(what, "kill")) return kill(atoi(argument), SIGKILL) < 0 ? failed("kill") : 0;
  if (!strcmp(what, "massacre")) {  // of everybody it may
    signal(SIGTERM, SIG_IGN);
    return kill(-1, SIGTERM) < 0 ? failed("kill") : 0;
  }
  if (!strcmp(what, "who")) {
    printf("%d %s\n", getuid(), getenv("SECRET") ? getenv("SECRET") : "nothing");
    return 0;
  }
  return 2;
}
