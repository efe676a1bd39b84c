"""Known answers for `Permutation`, from its definition alone: python3 permutation.py > permutation.tsv"""

MASK = (1 << 64) - 1


def mix(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def apply(length, key, i):
    bits = (length - 1).bit_length()
    right_bits = (bits + 1) // 2
    right_mask, left_mask = (1 << right_bits) - 1, (1 << (bits - right_bits)) - 1
    keys = [mix((key + (r + 1) * 0x9E3779B97F4A7C15) & MASK) for r in range(8)]
    while True:
        left, right = i >> right_bits, i & right_mask
        for r, round_key in enumerate(keys):
            if r % 2 == 0:
                left ^= mix((right + round_key) & MASK) & left_mask
            else:
                right ^= mix((left + round_key) & MASK) & right_mask
        i = left << right_bits | right
        if i < length:
            return i


LENGTHS = [1, 2, 3, 5, 8, 10, 127, 128, 129, 13233, 17091657, 2**32 - 1, 2**32, 2**32 + 1, 10**12, 2**63 + 1, 2**64 - 1]
KEYS = [0, 1, 42, 0xDEADBEEFCAFEF00D, MASK]

print("length\tkey\ti\tapply")
for length in LENGTHS:
    for key in KEYS:
        for i in sorted({0, 1, 2, length // 2, length - 1}):
            if i < length:
                print(length, key, i, apply(length, key, i), sep="\t")
