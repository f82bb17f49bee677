/* Time, and the conversation with the tool that measures the server.
 *
 * At a mark the generator prints one line and blocks until it is answered. While it blocks, the
 * server runs out of work: what is in flight then is finished outside of the window at its
 * beginning, and inside at its end, so that operations and CPU time belong together.
 */
#ifndef CLOCK_H
#define CLOCK_H

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000ull
#define MAX_SAMPLES (1u << 22)

static char first_error[200];

/* What the window has seen. */
static struct {
    uint64_t began, ended, operations, unclean, compressed, pings;
    double cpu;
    uint32_t *samples; /* round trips in ns */
    uint32_t sample_count;
    uint64_t longest;
    int is_open;
} window;

static uint64_t read_clock(clockid_t id)
{
    struct timespec time;
    clock_gettime(id, &time);
    return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

static uint64_t now(void) { return read_clock(CLOCK_MONOTONIC); }

static double own_cpu(void) { return (double)read_clock(CLOCK_PROCESS_CPUTIME_ID) / SECOND; }

/* Remember the first thing that went wrong; the run ends soon after. */
static void fail(const char *format, ...)
{
    va_list values;
    if (first_error[0])
        return;
    va_start(values, format);
    vsnprintf(first_error, sizeof first_error, format, values);
    va_end(values);
}

/* Give up at once, for what no run can go on after. */
static void stop(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void print_mark(const char *name)
{
    printf("{\"mark\": \"%s\"}\n", name);
    fflush(stdout);
}

/* Read the tool's answer; an end of file says that the tool is gone. */
static void read_answer(void)
{
    char letter = 0;
    while (letter != '\n')
        if (read(STDIN_FILENO, &letter, 1) != 1)
            exit(3);
}

static void begin_window(void)
{
    print_mark("begin");
    read_answer();
    window.samples = window.samples ? window.samples : malloc(MAX_SAMPLES * sizeof(uint32_t));
    if (!window.samples)
        stop("malloc");
    window.is_open = 1;
    window.operations = window.unclean = window.compressed = window.longest = 0;
    window.sample_count = 0;
    window.cpu = own_cpu();
    window.began = now();
}

static void end_window(void)
{
    window.ended = now();
    window.cpu = own_cpu() - window.cpu;
    window.is_open = 0;
    print_mark("end");
}

static void record(uint64_t duration)
{
    if (duration > window.longest)
        window.longest = duration;
    if (window.sample_count < MAX_SAMPLES)
        window.samples[window.sample_count++] = duration < UINT32_MAX ? (uint32_t)duration : UINT32_MAX;
}

static int compare(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

static double quantile_us(double part)
{
    if (!window.sample_count)
        return 0.0;
    return window.samples[(uint32_t)(part * (window.sample_count - 1))] / 1e3;
}

static void print_result(void)
{
    qsort(window.samples, window.sample_count, sizeof(uint32_t), compare);
    for (char *at = first_error; *at; at++)
        if (*at == '"' || *at == '\\' || (unsigned char)*at < ' ')
            *at = ' ';
    printf("{\"operations\": %llu, \"seconds\": %.6f, \"generator_cpu\": %.6f, ",
           (unsigned long long)window.operations, (double)(window.ended - window.began) / SECOND,
           window.cpu);
    printf("\"unclean\": %llu, \"compressed\": %llu, \"pings\": %llu, ",
           (unsigned long long)window.unclean, (unsigned long long)window.compressed,
           (unsigned long long)window.pings);
    printf("\"p50_us\": %.1f, \"p99_us\": %.1f, \"longest_us\": %.1f, \"error\": \"%s\"}\n",
           quantile_us(0.5), quantile_us(0.99), (double)window.longest / 1e3, first_error);
    fflush(stdout);
}

#endif
