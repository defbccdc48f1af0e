/* A plugin of qemu-user: counts the ARM instructions that a program runs, and some kinds of them.
 *
 * Each time the program calls getpgid(MARK), the plugin writes the counts so far to qemu's log, as
 * one line of JSON. The bits of each kind are those of the Arm Architecture Reference Manual, "A64
 * Instruction Set Encoding".
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <qemu-plugin.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static const struct {
    const char *kind;
    uint32_t mask, bits;
} patterns[] = {
    {"mmla8", 0xdfe0fc00, 0x4e80a400},   /* SMMLA, UMMLA: 8 x 8 bits, a product of 2x8 and 8x2 */
    {"mmla8", 0xffe0fc00, 0x4e80ac00},   /* USMMLA */
    {"mmla8", 0xff20fc00, 0x45009800},   /* SVE: SMMLA, UMMLA, USMMLA */
    {"dot8", 0x9fe0fc00, 0x0e809400},    /* SDOT, UDOT: 4 products of 8 bits for each sum */
    {"dot8", 0x9fc0f400, 0x0f80e000},    /* SDOT, UDOT by element */
    {"dot8", 0xffe0f800, 0x44800000},    /* SVE: SDOT, UDOT */
    {"dot8", 0xffe0f800, 0x44a00000},    /* SVE: SDOT, UDOT by element */
    {"mul8", 0x9f20fc00, 0x0e20c000},    /* SMULL, UMULL of vectors */
    {"mul8", 0x9f20fc00, 0x0e208000},    /* SMLAL, UMLAL of vectors */
    {"mul8", 0x9f00f400, 0x0f002000},    /* SMLAL, UMLAL by element */
    {"mul8", 0x9f00f400, 0x0f00a000},    /* SMULL, UMULL by element */
    {"fma32", 0xbfa0fc00, 0x0e20cc00},   /* FMLA, float32 */
    {"fma32", 0xbf80f400, 0x0f801000},   /* FMLA by element, float32 */
    {"fma32", 0xffe0c000, 0x65a00000},   /* SVE: FMLA, FMLS, float32 */
    {"fma32", 0xffe0fc00, 0x64a00000},   /* SVE: FMLA by element, float32 */
    {"fma16", 0xbfe0fc00, 0x0e400c00},   /* FMLA, float16 */
    {"fma16", 0xbfc0f400, 0x0f001000},   /* FMLA by element, float16 */
};
enum { GETPGID = 155, MARK = 0x7f0054f5 }; /* MARK is not the number of any process */
enum { PATTERNS = sizeof patterns / sizeof *patterns };

static qemu_plugin_u64 counts[PATTERNS + 1]; /* the last one: all instructions */

static void count(struct qemu_plugin_insn *instruction, int index)
{
    qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
        instruction, QEMU_PLUGIN_INLINE_ADD_U64, counts[index], 1);
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, i);
        uint32_t bits = 0;
        qemu_plugin_insn_data(instruction, &bits, sizeof bits);
        count(instruction, PATTERNS);
        for (int index = 0; index < PATTERNS; index++) {
            if ((bits & patterns[index].mask) == patterns[index].bits) {
                count(instruction, index);
            }
        }
    }
}

static void write_counts(void)
{
    char line[128];
    snprintf(line, sizeof line, "{\"all\": %llu",
             (unsigned long long)qemu_plugin_u64_sum(counts[PATTERNS]));
    qemu_plugin_outs(line);
    for (int index = 0; index < PATTERNS;) {
        const char *kind = patterns[index].kind;
        unsigned long long sum = 0;
        for (; index < PATTERNS && strcmp(patterns[index].kind, kind) == 0; index++) {
            sum += qemu_plugin_u64_sum(counts[index]);
        }
        snprintf(line, sizeof line, ", \"%s\": %llu", kind, sum);
        qemu_plugin_outs(line);
    }
    qemu_plugin_outs("}\n");
}

static void on_system_call(qemu_plugin_id_t id, unsigned int cpu, int64_t number, uint64_t a1,
                           uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6,
                           uint64_t a7, uint64_t a8)
{
    if (number == GETPGID && a1 == MARK) {
        write_counts();
    }
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(
    qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    for (int index = 0; index <= PATTERNS; index++) {
        counts[index] = qemu_plugin_scoreboard_u64(
            qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(id, on_system_call);
    return 0;
}
