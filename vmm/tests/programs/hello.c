#include <stdio.h>

int main(int argc, char **argv) {
    printf("hello from C, %d arguments, the last: %s\n", argc - 1, argv[argc - 1]);
    return argc - 1;
}
