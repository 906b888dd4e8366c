/*
 * The second client of `cargo xtask bench`: libiscsi's asynchronous API, which is what users have.
 *
 * One session, one thread, `depth` commands under way; each is begun again in the callback of the one before it, as
 * QEMU does it, with buffers of our own so that libiscsi has nothing to allocate but its tasks.
 *
 *   libiscsi PORTAL TARGET LUN READS RANDOM SIZE DEPTH SPAN SECONDS SEED
 *
 * READS is the per cent of reads, RANDOM 0 or 1, SIZE and SPAN bytes. What it saw goes to the standard output in the
 * machine's byte order: seconds (double), CPU of this process in nanoseconds (uint64_t), then the latency of each
 * command in nanoseconds (uint32_t).
 */
#include <errno.h>
#include <inttypes.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

struct slot {
	struct load *load;
	uint64_t begun;
	struct scsi_iovec iov;
};

struct load {
	struct iscsi_context *iscsi;
	int lun;
	unsigned reads;
	int random;
	uint32_t size;
	uint32_t block;
	uint64_t places;
	uint64_t next;
	uint64_t seed;
	uint64_t end;
	unsigned open;
	uint32_t *latencies;
	size_t count, room;
};

static void fail(const char *what, const char *why)
{
	fprintf(stderr, "%s: %s\n", what, why);
	exit(1);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t cpu(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return ((uint64_t)u.ru_utime.tv_sec + (uint64_t)u.ru_stime.tv_sec) * 1000000000 +
	       ((uint64_t)u.ru_utime.tv_usec + (uint64_t)u.ru_stime.tv_usec) * 1000;
}

/* xorshift: the accesses need to be spread, not unpredictable. */
static uint64_t below(struct load *l, uint64_t bound)
{
	l->seed ^= l->seed << 13;
	l->seed ^= l->seed >> 7;
	l->seed ^= l->seed << 17;
	return l->seed % bound;
}

static void done(struct iscsi_context *iscsi, int status, void *data, void *private_data);

static void begin(struct slot *s)
{
	struct load *l = s->load;
	int write = below(l, 100) >= l->reads;
	uint64_t place = l->random ? below(l, l->places) : l->next++ % l->places;
	uint64_t lba = place * (l->size / l->block);
	struct scsi_task *task;

	s->begun = now();
	if (write)
		task = iscsi_write16_iov_task(l->iscsi, l->lun, lba, NULL, l->size, (int)l->block, 0, 0, 0, 0, 0,
					      done, s, &s->iov, 1);
	else
		task = iscsi_read16_iov_task(l->iscsi, l->lun, lba, l->size, (int)l->block, 0, 0, 0, 0, 0, done, s,
					     &s->iov, 1);
	if (task == NULL)
		fail("begin", iscsi_get_error(l->iscsi));
	l->open++;
}

static void done(struct iscsi_context *iscsi, int status, void *data, void *private_data)
{
	struct slot *s = private_data;
	struct load *l = s->load;
	uint64_t ended = now(), took = ended - s->begun;

	if (status != SCSI_STATUS_GOOD)
		fail("a command ended badly", iscsi_get_error(iscsi));
	scsi_free_scsi_task(data);
	l->open--;
	if (l->count == l->room) {
		l->room = l->room ? l->room * 2 : 1 << 20;
		l->latencies = realloc(l->latencies, l->room * sizeof(*l->latencies));
		if (l->latencies == NULL)
			fail("latencies", strerror(errno));
	}
	l->latencies[l->count++] = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
	if (ended < l->end)
		begin(s);
}

static uint32_t block_size(struct iscsi_context *iscsi, int lun)
{
	struct scsi_task *task = iscsi_readcapacity10_sync(iscsi, lun, 0, 0);
	struct scsi_readcapacity10 *capacity;
	uint32_t size;

	if (task == NULL || task->status != SCSI_STATUS_GOOD)
		fail("READ CAPACITY", iscsi_get_error(iscsi));
	capacity = scsi_datain_unmarshall(task);
	if (capacity == NULL || capacity->block_size == 0)
		fail("READ CAPACITY", "no answer to be understood");
	size = capacity->block_size;
	scsi_free_scsi_task(task);
	return size;
}

int main(int argc, char **argv)
{
	struct load load = { 0 };
	struct slot *slots;
	unsigned depth, n;
	uint64_t start, used;
	double seconds;

	if (argc != 11)
		fail("usage", "libiscsi PORTAL TARGET LUN READS RANDOM SIZE DEPTH SPAN SECONDS SEED");
	load.lun = atoi(argv[3]);
	load.reads = (unsigned)atoi(argv[4]);
	load.random = atoi(argv[5]);
	load.size = (uint32_t)strtoul(argv[6], NULL, 10);
	depth = (unsigned)atoi(argv[7]);
	load.places = strtoull(argv[8], NULL, 10) / load.size;
	load.seed = strtoull(argv[10], NULL, 10) | 1;
	if (load.size == 0 || load.places == 0 || depth == 0)
		fail("usage", "SIZE, DEPTH and SPAN / SIZE are at least 1");

	load.iscsi = iscsi_create_context("iqn.2026-01.org.example:libiscsi");
	if (load.iscsi == NULL)
		fail("libiscsi", "no context");
	iscsi_set_targetname(load.iscsi, argv[2]);
	iscsi_set_session_type(load.iscsi, ISCSI_SESSION_NORMAL);
	iscsi_set_header_digest(load.iscsi, ISCSI_HEADER_DIGEST_NONE);
	/* Each session is an initiator port of its own, so that none reinstates another. */
	iscsi_set_isid_random(load.iscsi, (uint32_t)getpid() & 0xffffff, 0);
	if (iscsi_full_connect_sync(load.iscsi, argv[1], load.lun) != 0)
		fail("login", iscsi_get_error(load.iscsi));
	load.block = block_size(load.iscsi, load.lun);

	slots = calloc(depth, sizeof(*slots));
	if (slots == NULL)
		fail("memory", strerror(errno));
	for (n = 0; n < depth; n++) {
		slots[n].load = &load;
		slots[n].iov.iov_len = load.size;
		slots[n].iov.iov_base = malloc(load.size);
		if (slots[n].iov.iov_base == NULL)
			fail("memory", strerror(errno));
		memset(slots[n].iov.iov_base, 0x5a, load.size);
	}

	used = cpu();
	start = now();
	load.end = start + (uint64_t)(strtod(argv[9], NULL) * 1e9);
	for (n = 0; n < depth; n++)
		begin(&slots[n]);
	while (load.open > 0) {
		struct pollfd p = { .fd = iscsi_get_fd(load.iscsi), .events = (short)iscsi_which_events(load.iscsi) };

		switch (poll(&p, 1, 10000)) {
		case 0:
			fail("poll", "no answer within 10 s");
			break;
		case -1:
			if (errno != EINTR)
				fail("poll", strerror(errno));
		}
		if (iscsi_service(load.iscsi, p.revents) != 0)
			fail("service", iscsi_get_error(load.iscsi));
	}
	seconds = (double)(now() - start) / 1e9;
	used = cpu() - used;
	iscsi_logout_sync(load.iscsi);
	iscsi_destroy_context(load.iscsi);

	if (fwrite(&seconds, sizeof(seconds), 1, stdout) != 1 || fwrite(&used, sizeof(used), 1, stdout) != 1 ||
	    fwrite(load.latencies, sizeof(*load.latencies), load.count, stdout) != load.count || fflush(stdout) != 0)
		fail("output", strerror(errno));
	return 0;
}
