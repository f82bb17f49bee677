/* The frames to send, built and masked before the run, and the reading of replies.
 *
 * A reply is read as far as its head; its payload is counted and not looked at. (Payloads are
 * compared by the tool, once for each run, before the load.)
 */
#ifndef FRAMES_H
#define FRAMES_H

#include "clock.h"

enum { CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

#define MAX_HEAD 14
#define MAX_CONTROL 125

/* `count` different frames behind one another, and then the first `depth` of them again, so that
 * up to `depth` frames from any of them on are one piece of memory. */
struct frames {
    uint8_t *bytes;
    size_t *offset;
    uint32_t count;
};

/* How far the reading of a connection has come. */
struct reader {
    uint8_t head[MAX_HEAD];
    uint8_t head_length, is_in_payload, opcode, is_compressed;
    uint8_t control[MAX_CONTROL], control_length;
    uint64_t remaining, message_size;
    uint8_t message_opcode;
};

static uint8_t expected_opcode = BINARY;
static uint64_t expected_size; /* of each reply; 0 where it cannot be known */

static uint32_t random_state = 2463534242u;

static uint32_t next_random(void) /* Marsaglia, "Xorshift RNGs" */
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    return random_state ^= random_state << 5;
}

/* Write one final masked frame and return its size. */
static size_t write_frame(uint8_t *out, uint8_t first, const uint8_t *payload, size_t size)
{
    size_t at = 2;
    uint32_t key = next_random();
    out[0] = 0x80 | first;
    if (size <= 125) {
        out[1] = 0x80 | (uint8_t)size;
    } else {
        int bytes = size <= 0xffff ? 2 : 8;
        out[1] = 0x80 | (bytes == 2 ? 126 : 127);
        for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8)
            out[at++] = (uint8_t)((uint64_t)size >> shift);
    }
    memcpy(out + at, &key, 4);
    for (size_t i = 0; i < size; i++)
        out[at + 4 + i] = payload[i] ^ out[at + i % 4];
    return at + 4 + size;
}

/* Read a file of payloads, each behind its size in four bytes, the lowest first. */
static uint8_t *read_payloads(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data;
    long length;
    if (!file || fseek(file, 0, SEEK_END) || (length = ftell(file)) <= 0)
        stop(path);
    rewind(file);
    data = malloc((size_t)length);
    if (!data || fread(data, 1, (size_t)length, file) != (size_t)length)
        stop(path);
    fclose(file);
    *size = (size_t)length;
    return data;
}

/* Build frames from a file, each payload several times, with another masking key every time. */
static struct frames build_frames(const char *path, uint8_t first, uint32_t depth)
{
    size_t file_size, at, end = 0;
    uint8_t *data = read_payloads(path, &file_size);
    /* So many that keys vary, so few that they stay in the processor's cache. */
    uint32_t repeat = file_size > (1u << 18) ? 2 : file_size > (1u << 12) ? 4 : 64;
    struct frames frames = {0};
    uint32_t records = 0, total = 0;
    for (at = 0; at < file_size; records++)
        at += 4 + (data[at] | data[at + 1] << 8 | data[at + 2] << 16 | (size_t)data[at + 3] << 24);
    frames.count = records * repeat;
    frames.offset = malloc((frames.count + depth + 1) * sizeof(size_t));
    frames.bytes = malloc((file_size + records * MAX_HEAD) * (repeat + depth / records + 1));
    if (at != file_size || !frames.offset || !frames.bytes)
        stop(path);
    for (at = 0; total < frames.count + depth; total++) {
        size_t size = data[at] | data[at + 1] << 8 | data[at + 2] << 16 | (size_t)data[at + 3] << 24;
        frames.offset[total] = end;
        end += write_frame(frames.bytes + end, first, data + at + 4, size);
        at = (at + 4 + size) % file_size;
        expected_size = size;
    }
    frames.offset[total] = end;
    free(data);
    return frames;
}

static uint8_t head_size(const struct reader *reader)
{
    uint8_t code = reader->head[1] & 0x7f;
    return code == 126 ? 4 : code == 127 ? 10 : 2;
}

static void read_head(struct reader *reader)
{
    const uint8_t *head = reader->head;
    uint8_t size = head_size(reader);
    uint64_t length = head[1] & 0x7f;
    if (size > 2)
        for (length = 0, size = 2; size < head_size(reader); size++)
            length = length << 8 | head[size];
    reader->opcode = head[0] & 0x0f;
    reader->remaining = length;
    reader->is_in_payload = 1;
    reader->control_length = 0;
    if (head[1] & 0x80)
        fail("a reply is masked");
    if (reader->opcode >= CLOSE && length > MAX_CONTROL)
        fail("a control frame is too long");
    if (reader->opcode == TEXT || reader->opcode == BINARY) {
        reader->message_opcode = reader->opcode;
        reader->is_compressed = head[0] >> 6 & 1;
        reader->message_size = 0;
    }
    if (reader->opcode < CLOSE)
        reader->message_size += length;
}

/* Take bytes for the frame that is being read, and return how many.
 * It is over when `is_over` is set; control frames then have their payload in `control`. */
static size_t take(struct reader *reader, const uint8_t *data, size_t size, int *is_over)
{
    size_t taken = 0, part;
    *is_over = 0;
    if (!reader->is_in_payload) {
        while (taken < size && (reader->head_length < 2 || reader->head_length < head_size(reader)))
            reader->head[reader->head_length++] = data[taken++];
        if (reader->head_length < 2 || reader->head_length < head_size(reader))
            return taken;
        read_head(reader);
    }
    part = size - taken < reader->remaining ? size - taken : (size_t)reader->remaining;
    if (reader->opcode >= CLOSE && reader->control_length + part <= MAX_CONTROL) {
        memcpy(reader->control + reader->control_length, data + taken, part);
        reader->control_length += (uint8_t)part;
    }
    reader->remaining -= part;
    *is_over = !reader->remaining;
    return taken + part;
}

/* Close the books on a frame; return 1 when it ends a message, which is checked. */
static int end_frame(struct reader *reader)
{
    int is_final = reader->head[0] >> 7;
    reader->is_in_payload = reader->head_length = 0;
    if (reader->opcode >= CLOSE || !is_final)
        return 0;
    if (reader->message_opcode != expected_opcode)
        fail("a reply has opcode %d", reader->message_opcode);
    else if (reader->is_compressed)
        window.compressed++;
    else if (expected_size && reader->message_size != expected_size)
        fail("a reply has %llu bytes", (unsigned long long)reader->message_size);
    return 1;
}

#endif
