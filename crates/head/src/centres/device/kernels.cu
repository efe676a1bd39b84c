// The head's kernels, compiled when a GPU is first used. Names of arrays end in their axes: C = rows
// of the rank, D = embedding, N = numbers of a row's state, T = rows of the tile, G = global batch.
//
// A block works on one row of the tile, or on one sample. Sums are taken in an order that the number of threads of a
// block decides, so that every run gives the same bits. bf16 is handled as its 16 bits.

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

__device__ __forceinline__ float load(const float *p, i64 i) { return p[i]; }
__device__ __forceinline__ float load(const u16 *p, i64 i) {
    return __uint_as_float(static_cast<u32>(p[i]) << 16);
}

// To the nearest, of two to the even one.
__device__ __forceinline__ void store(float *p, i64 i, float value) { p[i] = value; }
__device__ __forceinline__ void store(u16 *p, i64 i, float value) {
    const u32 bits = __float_as_uint(value);
    p[i] = value != value ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// Up or down at random, by the bits that the host takes for the same key and position.
__device__ __forceinline__ void store_random(float *p, i64 i, float value, u64, u32) {
    p[i] = value;
}
__device__ __forceinline__ void store_random(u16 *p, i64 i, float value, u64 key, u32 position) {
    u32 x = static_cast<u32>(key) + position * 0x9e3779b9u;
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15) ^ static_cast<u32>(key >> 32)) * 0x846ca68bu;
    const u32 bits = __float_as_uint(value), random = (x ^ (x >> 16)) >> 16;
    p[i] = value != value ? bits >> 16 | 0x40 : (bits + random) >> 16;
}

// 64 bits for 64 bits, as `pfc_random::mix` has it.
__device__ __forceinline__ u64 scramble(u64 x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

// A cosine to `[-1, 1]`, beyond which there is only rounding. What is no number stays so, to show in the loss.
template <typename F>
__device__ __forceinline__ F cut(F cosine) {
    return cosine < F(-1) ? F(-1) : cosine > F(1) ? F(1) : cosine;
}

// The sum over the block, in all threads; their number is a power of two.
template <typename F>
__device__ __forceinline__ F block_sum(F value, F *scratch) {
    scratch[threadIdx.x] = value;
    __syncthreads();
    for (u32 width = blockDim.x / 2; width > 0; width /= 2) {
        if (threadIdx.x < width) scratch[threadIdx.x] += scratch[threadIdx.x + width];
        __syncthreads();
    }
    const F sum = scratch[0];
    __syncthreads();
    return sum;
}

// A map of weight and momentum that stands for the steps that a row has missed.
struct UpdateMap {
    float ww, wv, vw, vv;
};

// When rows last moved, and what they have missed since: `maps_k` begins with the map of a row that was never
// touched and that of one that is up to date, and goes on by the number of missed steps. It is null where rows
// miss nothing.
struct Missed {
    const int *stamps_c;
    const UpdateMap *maps_k;
    int n_maps;
    u32 now;
};

// What one row has missed.
struct Late {
    UpdateMap map;
    bool is_late;
};

__device__ __forceinline__ Late late(const Missed &missed, i64 row) {
    const Late up_to_date = {{1, 0, 0, 1}, false};
    if (missed.maps_k == nullptr) return up_to_date;
    const u32 stamp = static_cast<u32>(missed.stamps_c[row]);
    if (stamp == 0) return Late{missed.maps_k[0], true};
    const u32 n_missed = missed.now - stamp;
    if (stamp >= missed.now || n_missed + 1 >= static_cast<u32>(missed.n_maps)) return up_to_date;
    return Late{missed.maps_k[n_missed + 1], true};
}

template <typename W, typename S>
__device__ __forceinline__ float weight_now(const W *weight_cd, const S *state_cn, i64 at, const Late &late) {
    const float w = load(weight_cd, at);
    return late.is_late ? late.map.ww * w + late.map.wv * load(state_cn, at) : w;
}

// The first position in an ascending list of what is not below `value`; its length if there is none.
__device__ __forceinline__ int position_of(const i64 *values, int n, i64 value) {
    int first = 0;
    while (n > 0) {
        const int half = n / 2;
        const bool is_below = values[first + half] < value;
        first = is_below ? first + half + 1 : first;
        n = is_below ? n - half - 1 : half;
    }
    return first;
}

extern __shared__ float shared[];

#define LENGTH_LEAST 1e-12f

template <typename W, typename S, typename O>
__device__ void unit_rows(const W *weight_cd, const S *state_cn, const i64 *rows_t, const Missed &missed,
                          int dim, O *unit_td) {
    const i64 from = rows_t[blockIdx.x] * dim, to = static_cast<i64>(blockIdx.x) * dim;
    const Late row = late(missed, rows_t[blockIdx.x]);
    float squares = 0;
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
        const float w = weight_now(weight_cd, state_cn, from + i, row);
        squares += w * w;
    }
    const float inverse = 1.0f / fmaxf(sqrtf(block_sum(squares, shared)), LENGTH_LEAST);
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
        store(unit_td, to + i, weight_now(weight_cd, state_cn, from + i, row) * inverse);
    }
}

// A thread takes one sample, a block stretches of rows: of its own number, and of every further one that
// is larger by the number of blocks in y. `sums_kg` has a row for each stretch. Row 0 is `first_slot` in the
// count of `own_g`, which has each sample's own centre.
template <typename O>
__device__ void exponentials(const O *cos_tg, const int *own_g, int first_slot, const float *offsets_g,
                             float scale, float filter, int n_rows, int n_samples, int stretch_rows,
                             O *exp_tg, float *sums_kg) {
    const int g = blockIdx.x * blockDim.x + threadIdx.x;
    if (g >= n_samples) return;
    const int own = own_g[g] - first_slot;
    const float offset = offsets_g == nullptr ? 0.0f : offsets_g[g];
    const int n_stretches = n_rows / stretch_rows + 1;
    for (int stretch = blockIdx.y; stretch < n_stretches; stretch += gridDim.y) {
        const int first = stretch * stretch_rows;
        float sum = 0;
        for (int t = first; t < min(first + stretch_rows, n_rows); t++) {
            const i64 at = static_cast<i64>(t) * n_samples + g;
            const float cosine = cut(load(cos_tg, at));
            const bool is_noise = filter > 0.0f && cosine > filter;
            const float e =
                own == t ? 0.0f : expf((is_noise ? 0.0f : cosine) * scale - offset);
            sum += e;
            // Noise stays in the sum as cosine 0 and passes nothing back.
            store(exp_tg, at, is_noise ? 0.0f : e);
        }
        sums_kg[static_cast<i64>(stretch) * n_samples + g] = sum;
    }
}

// What a step finds out, as f64: the mean loss, the mean cosine of the positives, the first sample whose
// embedding is not finite or -1, and whether centres may move, 1 or 0.
enum { LOSS = 0, COSINE = 1, NOT_FINITE = 2, MAY_MOVE = 3 };

// A block takes one sample: its embedding brought to unit length, that in the products' format too where it
// is another, and the length that it had.
template <typename O>
__device__ void normalise(const float *raw_gd, int dim, float *unit_gd, O *operand_gd, float *lengths_g) {
    const i64 at = static_cast<i64>(blockIdx.x) * dim;
    float squares = 0;
    for (int i = threadIdx.x; i < dim; i += blockDim.x) squares += raw_gd[at + i] * raw_gd[at + i];
    const float length = sqrtf(block_sum(squares, shared)), divisor = fmaxf(length, LENGTH_LEAST);
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
        const float unit = raw_gd[at + i] / divisor;
        unit_gd[at + i] = unit;
        if (operand_gd != nullptr) store(operand_gd, at + i, unit);
    }
    if (threadIdx.x == 0) lengths_g[blockIdx.x] = length;
}

// A block takes one sample: its own centre, row `rows_g[g]` of the table, as a unit row; its place among the
// rows of the step, `rows_s`; and the cosine of the two in f64, as the margin acts on it.
template <typename W, typename S>
__device__ void positives(const W *weight_cd, const S *state_cn, const i64 *rows_g, const Missed &missed,
                          const float *unit_gd, int dim, const i64 *rows_s, int n_rows,
                          float *unit_centres_gd, double *cosines_g, int *slots_g) {
    unit_rows(weight_cd, state_cn, rows_g, missed, dim, unit_centres_gd);
    if (threadIdx.x == 0) slots_g[blockIdx.x] = position_of(rows_s, n_rows, rows_g[blockIdx.x]);
    const i64 at = static_cast<i64>(blockIdx.x) * dim;
    double product = 0;
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
        // Of the centre a thread reads back what it has written itself.
        product += static_cast<double>(unit_gd[at + i]) * static_cast<double>(unit_centres_gd[at + i]);
    }
    // The sum of the squares has ended with a barrier, so its memory is free.
    product = block_sum(product, reinterpret_cast<double *>(shared));
    if (threadIdx.x == 0) cosines_g[blockIdx.x] = product;
}

enum { ADDITIVE = 0, ANGULAR = 1, GUARDED = 2, SCALED = 3 };

// psi, which takes the cosine's place, and its derivative. By kind, with c the cosine at angle t:
// c - of[0]; cos(t + m) with slope 1, of[0] and of[1] being the cosine and the sine of m; the same with its
// own slope, and below the cosine of[2] the line c - of[3]; cos(pi (of[0] t / pi + of[1])) - of[2], slope
// of[0] sin(...) / sin t.
struct Margin {
    int kind;
    double of[4];
};

struct Target {
    double value, slope;
};

// Below this the sine of an angle between two unit vectors of f32 is rounding.
#define SINE_LEAST 1e-3
#define PI 3.14159265358979323846

__device__ __forceinline__ Target target_of(const Margin &margin, double c) {
    const double *m = margin.of;
    if (margin.kind == ADDITIVE) return Target{c - m[0], 1.0};
    const double sine = sqrt((1.0 - c) * (1.0 + c));
    if (margin.kind == SCALED) {
        // Half turns, for which no reduction of a large angle is compiled in.
        const double turns = acos(c) / PI * m[0] + m[1];
        return Target{cospi(turns) - m[2], m[0] * sinpi(turns) / fmax(sine, SINE_LEAST)};
    }
    if (margin.kind == GUARDED && c < m[2]) return Target{c - m[3], 1.0};
    const double value = c * m[0] - sine * m[1];
    if (margin.kind == ANGULAR) return Target{value, 1.0};
    return Target{value, (sine * m[0] + c * m[1]) / fmax(sine, SINE_LEAST)};
}

// One block: what the samples lose, and the derivatives. `factors_g` turn a negative's exponential into the
// derivative of the mean loss by its cosine, `slopes_g` are those by the positives' cosines. Logits are
// `scale` times cosines; a negative stands for `weight` of them.
__device__ __forceinline__ void losses(const double *sums_g, const double *cosines_g, const float *lengths_g,
                                       int n_samples, const Margin &margin, double scale, double weight,
                                       float *factors_g, float *slopes_g, double *figures) {
    double *scratch = reinterpret_cast<double *>(shared);
    const double per_cosine = scale / n_samples;
    double loss_sum = 0, cosine_sum = 0;
    // The first of a thread's own, which ascend.
    double not_finite = n_samples;
    for (int g = threadIdx.x; g < n_samples; g += blockDim.x) {
        const double cosine = cosines_g[g], length = lengths_g[g];
        if (not_finite == n_samples && !(length - length == 0.0)) not_finite = g;
        const Target target = target_of(margin, cut(cosine));
        const double logit = scale * target.value, log_negatives = log(sums_g[g] * weight);
        // ln((e^n + e^l) / e^l) = ln(1 + e^(n - l)), which keeps its digits where it is near 0.
        const double lead = log_negatives - logit;
        const double loss = fmax(lead, 0.0) + log1p(exp(-fabs(lead)));
        const double log_sum = logit + loss;
        // A probability below 1e-30 counts as that; a sum that is no number stays one.
        const double loss_max = 69.07755278982137;
        loss_sum += loss > loss_max ? loss_max : loss;
        cosine_sum += cosine;
        factors_g[g] = static_cast<float>(per_cosine * weight * exp(-log_sum));
        const bool is_cut = cosine > 1.0 || cosine < -1.0;
        const double by_logit = -exp(log_negatives - log_sum);
        slopes_g[g] = is_cut ? 0.0f : static_cast<float>(per_cosine * by_logit * target.slope);
    }
    loss_sum = block_sum(loss_sum, scratch);
    cosine_sum = block_sum(cosine_sum, scratch);
    // The least over the block, by comparisons of neighbours.
    scratch[threadIdx.x] = not_finite;
    __syncthreads();
    for (u32 width = blockDim.x / 2; width > 0; width /= 2) {
        if (threadIdx.x < width) scratch[threadIdx.x] = fmin(scratch[threadIdx.x], scratch[threadIdx.x + width]);
        __syncthreads();
    }
    if (threadIdx.x > 0) return;
    const double loss = loss_sum / n_samples, first = scratch[0];
    figures[LOSS] = loss;
    figures[COSINE] = cosine_sum / n_samples;
    figures[NOT_FINITE] = first < n_samples ? first : -1.0;
    figures[MAY_MOVE] = first == n_samples && loss - loss == 0.0 ? 1.0 : 0.0;
}

// A block takes one sample: the gradient by its embedding, sent back through the normalisation, and the
// embedding times its factor, which the gradient of the negatives is made of.
template <typename O>
__device__ void gradients(const float *weighted_gd, const float *unit_centres_gd, const float *unit_gd,
                          const float *lengths_g, const float *factors_g, const float *slopes_g, int dim,
                          float *gradient_gd, O *operand_gd) {
    const i64 at = static_cast<i64>(blockIdx.x) * dim;
    const float factor = factors_g[blockIdx.x], slope = slopes_g[blockIdx.x], length = lengths_g[blockIdx.x];
    float along = 0;
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
        const float unit = unit_gd[at + i];
        const float by_unit = weighted_gd[at + i] * factor + unit_centres_gd[at + i] * slope;
        gradient_gd[at + i] = by_unit;
        store(operand_gd, at + i, unit * factor);
        along += by_unit * unit;
    }
    along = block_sum(along, shared);
    // An embedding shorter than the least length was scaled by a constant.
    if (length < LENGTH_LEAST) along = 0;
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
        gradient_gd[at + i] = (gradient_gd[at + i] - along * unit_gd[at + i]) / fmaxf(length, LENGTH_LEAST);
    }
}

enum { SGD = 0, ADAMW = 1, ROW_ADAGRAD = 2 };

// By optimizer: lr, momentum, decay; lr / correction1, beta1, beta2, eps, 1 - lr * decay,
// 1 / sqrt(correction2); lr, eps, decay.
struct Motion {
    float of[6];
};

// What samples add to the gradient of their own centres: the samples `samples_o`, in the order of these rows.
struct Pulls {
    const i64 *rows_o;
    const int *samples_o;
    int n;
    const float *slopes_g, *unit_embeddings_gd;
};

template <typename W, typename S, typename O>
__device__ void update(W *weight_cd, S *state_cn, int *stamps_c, const i64 *rows_t, const Missed &missed,
                       u32 stamp_after, int dim, int n_state, const O *negatives_td, Pulls pulls, const double *figures,
                       u64 key_base, int optimizer, Motion motion) {
    // A step whose loss is not finite moves nothing.
    if (figures != nullptr && figures[MAY_MOVE] == 0.0) return;
    float *scratch = shared, *w = scratch + blockDim.x, *g = w + dim;
    const i64 row = rows_t[blockIdx.x];
    const i64 at_w = rows_t[blockIdx.x] * dim, at_s = row * n_state;
    const i64 at_g = static_cast<i64>(blockIdx.x) * dim;
    const u64 key = scramble(key_base + static_cast<u64>(row));
    const Late then = late(missed, row);
    const int first_pull = position_of(pulls.rows_o, pulls.n, row);
    float squares = 0, along = 0;
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
        w[i] = weight_now(weight_cd, state_cn, at_w + i, then);
        float sum = load(negatives_td, at_g + i);
        for (int o = first_pull; o < pulls.n && pulls.rows_o[o] == row; o++) {
            const int sample = pulls.samples_o[o];
            const i64 at_e = static_cast<i64>(sample) * dim;
            sum += pulls.slopes_g[sample] * pulls.unit_embeddings_gd[at_e + i];
        }
        g[i] = sum;
        squares += w[i] * w[i];
        along += sum * w[i];
    }
    squares = block_sum(squares, scratch);
    along = block_sum(along, scratch);
    const float length = sqrtf(squares), inverse = 1.0f / fmaxf(length, LENGTH_LEAST);
    // A row shorter than the least length is scaled by a constant, and nothing is taken off.
    along = length > LENGTH_LEAST ? along * inverse * inverse : 0.0f;
    const float *m = motion.of;
    float rate = 0;
    if (optimizer == ROW_ADAGRAD) {
        float mean = 0;
        for (int i = threadIdx.x; i < dim; i += blockDim.x) {
            const float decayed = (g[i] - along * w[i]) * inverse + m[2] * w[i];
            mean += decayed * decayed;
        }
        // Read before the barriers of the sum, after which a thread writes it.
        const float before = load(state_cn, at_s);
        const float sum = before + block_sum(mean, scratch) / dim;
        rate = m[0] / (sqrtf(sum) + m[1]);
        if (threadIdx.x == 0) store_random(state_cn, at_s, sum, key + 1, 0);
    }
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
        const float gradient = (g[i] - along * w[i]) * inverse;
        float moved;
        if (optimizer == SGD) {
            float v = load(state_cn, at_s + i);
            if (then.is_late) v = then.map.vw * load(weight_cd, at_w + i) + then.map.vv * v;
            v = m[1] * v + gradient + m[2] * w[i];
            moved = w[i] - m[0] * v;
            store_random(state_cn, at_s + i, v, key + 1, i);
        } else if (optimizer == ADAMW) {
            const float mean = m[1] * load(state_cn, at_s + i) + (1.0f - m[1]) * gradient;
            const float square =
                m[2] * load(state_cn, at_s + dim + i) + (1.0f - m[2]) * gradient * gradient;
            moved = m[4] * w[i] - m[0] * mean / (sqrtf(square) * m[5] + m[3]);
            store_random(state_cn, at_s + i, mean, key + 1, i);
            store_random(state_cn, at_s + dim + i, square, key + 1, dim + i);
        } else {
            moved = w[i] - rate * (gradient + m[2] * w[i]);
        }
        store_random(weight_cd, at_w + i, moved, key, i);
    }
    // All threads have read it before the barriers of the sums.
    if (threadIdx.x == 0) stamps_c[row] = static_cast<int>(stamp_after);
}

// A permutation of the numbers below `len`, as `pfc_shard::Permutation` has it.
struct Permutation {
    u64 keys[8], left_mask, right_mask, len;
    u32 right_bits;
};

__device__ __forceinline__ Permutation permutation(u64 len, u64 key) {
    Permutation p;
    u32 bits = 0;
    while (len > 1 && (len - 1) >> bits > 0) bits++;
    p.right_bits = (bits + 1) / 2;
    p.right_mask = (1ull << p.right_bits) - 1;
    p.left_mask = (1ull << (bits - p.right_bits)) - 1;
    p.len = len;
#pragma unroll
    for (int i = 0; i < 8; i++) p.keys[i] = scramble(key + static_cast<u64>(i + 1) * 0x9e3779b97f4a7c15ull);
    return p;
}

// Where a number goes.
__device__ __forceinline__ u64 permuted(const Permutation &p, u64 value) {
    do {
        u64 left = value >> p.right_bits, right = value & p.right_mask;
#pragma unroll
        for (int i = 0; i < 8; i += 2) {
            left ^= p.left_mask & scramble(right + p.keys[i]);
            right ^= p.right_mask & scramble(left + p.keys[i + 1]);
        }
        value = left << p.right_bits | right;
    } while (value >= p.len);
    return value;
}

// Where it comes from.
__device__ __forceinline__ u64 origin(const Permutation &p, u64 value) {
    do {
        u64 left = value >> p.right_bits, right = value & p.right_mask;
#pragma unroll
        for (int i = 6; i >= 0; i -= 2) {
            right ^= p.right_mask & scramble(left + p.keys[i + 1]);
            left ^= p.left_mask & scramble(right + p.keys[i]);
        }
        value = left << p.right_bits | right;
    } while (value >= p.len);
    return value;
}

// A share of a draw, as `pfc_rows::sampling::BlockShare` has it: of the classes from `first` on, `len` many,
// all positives, which are those from `first_positive` on in the list of all, and `n_negatives` others, which
// are first in the order of a permutation. Its rows begin at `slot`.
struct Share {
    i64 first, len, slot, n_negatives, first_positive, n_positives;
    u64 key;
};

// A block takes one share; a class is its row.
__device__ __forceinline__ void draw(const Share *shares, const i64 *positives_p, i64 *rows_s) {
    const Share share = shares[blockIdx.x];
    u32 *scratch = reinterpret_cast<u32 *>(shared), *drawn = scratch + blockDim.x;
    const u32 n_words = static_cast<u32>((share.len + 31) / 32);
    for (u32 word = threadIdx.x; word < n_words; word += blockDim.x) drawn[word] = 0;
    const Permutation order = permutation(share.len, share.key);
    const i64 *positives = positives_p + share.first_positive;
    // As many more as there are positives among the first, which grow by that.
    u64 end = share.n_negatives;
    for (u32 n_inside = 0, before = 1; n_inside != before;) {
        u32 n = 0;
        for (i64 i = threadIdx.x; i < share.n_positives; i += blockDim.x) {
            n += origin(order, positives[i] - share.first) < end;
        }
        before = n_inside;
        n_inside = block_sum(n, scratch);
        end = share.n_negatives + n_inside;
    }
    for (i64 i = threadIdx.x; i < share.n_positives; i += blockDim.x) {
        const u32 place = static_cast<u32>(positives[i] - share.first);
        atomicOr(&drawn[place / 32], 1u << place % 32);
    }
    for (u64 i = threadIdx.x; i < end; i += blockDim.x) {
        const u32 place = static_cast<u32>(permuted(order, i));
        atomicOr(&drawn[place / 32], 1u << place % 32);
    }
    __syncthreads();
    // Each thread has words in a row, and begins after those of the threads before it.
    const u32 n_own = (n_words + blockDim.x - 1) / blockDim.x;
    const u32 first = min(threadIdx.x * n_own, n_words), last = min(first + n_own, n_words);
    u32 n = 0;
    for (u32 word = first; word < last; word++) n += __popc(drawn[word]);
    scratch[threadIdx.x] = n;
    __syncthreads();
    for (u32 width = 1; width < blockDim.x; width *= 2) {
        const u32 others = threadIdx.x >= width ? scratch[threadIdx.x - width] : 0;
        __syncthreads();
        scratch[threadIdx.x] += others;
        __syncthreads();
    }
    i64 at = share.slot + scratch[threadIdx.x] - n;
    for (u32 word = first; word < last; word++) {
        for (u32 bits = drawn[word]; bits != 0; bits &= bits - 1) {
            rows_s[at++] = share.first + word * 32 + __ffs(static_cast<int>(bits)) - 1;
        }
    }
}

extern "C" __global__ void draw_(const Share *shares, const i64 *positives_p, i64 *rows_s) {
    draw(shares, positives_p, rows_s);
}

// A function for each number format of weights, state and products: f is f32, h is bf16.
#define UNIT_ROWS(name, W, S, O)                                                                     \
    extern "C" __global__ void unit_rows_##name(                                                     \
        const W *weight_cd, const S *state_cn, const int *stamps_c, const i64 *rows_t,               \
        const UpdateMap *maps_k, int n_maps, u32 now, int dim, O *unit_td) {                         \
        unit_rows(weight_cd, state_cn, rows_t, Missed{stamps_c, maps_k, n_maps, now}, dim, unit_td); \
    }
#define UPDATE(name, W, S, O)                                                                        \
    extern "C" __global__ void update_##name(                                                        \
        W *weight_cd, S *state_cn, int *stamps_c, const i64 *rows_t, const UpdateMap *maps_k,        \
        int n_maps, u32 now, int dim, u32 stamp_after, int n_state, const O *negatives_td,           \
        const i64 *rows_o, const int *samples_o, int n_pulls, const float *slopes_g,                 \
        const float *unit_embeddings_gd, const double *figures, u64 key_base, int optimizer,         \
        float m0, float m1, float m2, float m3, float m4, float m5) {                                \
        update(weight_cd, state_cn, stamps_c, rows_t, Missed{stamps_c, maps_k, n_maps, now},         \
               stamp_after, dim, n_state, negatives_td,                                              \
               Pulls{rows_o, samples_o, n_pulls, slopes_g, unit_embeddings_gd}, figures, key_base,   \
               optimizer, Motion{{m0, m1, m2, m3, m4, m5}});                                         \
    }
#define EXPONENTIALS(name, O)                                                                        \
    extern "C" __global__ void exponentials_##name(                                                  \
        const O *cos_tg, const int *own_g, int first_slot, const float *offsets_g, float scale,      \
        float filter, int n_rows, int n_samples, int stretch_rows, O *exp_tg, float *sums_kg) {      \
        exponentials(cos_tg, own_g, first_slot, offsets_g, scale, filter, n_rows, n_samples,         \
                     stretch_rows, exp_tg, sums_kg);                                                 \
    }
#define NORMALISE(name, O)                                                                           \
    extern "C" __global__ void normalise_##name(const float *raw_gd, int dim, float *unit_gd,        \
                                                O *operand_gd, float *lengths_g) {                   \
        normalise(raw_gd, dim, unit_gd, operand_gd, lengths_g);                                      \
    }
#define POSITIVES(name, W, S)                                                                        \
    extern "C" __global__ void positives_##name(                                                     \
        const W *weight_cd, const S *state_cn, const int *stamps_c, const i64 *rows_g,               \
        const UpdateMap *maps_k, int n_maps, u32 now, int dim, const float *unit_gd,                 \
        const i64 *rows_s, int n_rows, float *unit_centres_gd, double *cosines_g, int *slots_g) {    \
        positives(weight_cd, state_cn, rows_g, Missed{stamps_c, maps_k, n_maps, now}, unit_gd, dim,  \
                  rows_s, n_rows, unit_centres_gd, cosines_g, slots_g);                              \
    }
#define GRADIENTS(name, O)                                                                           \
    extern "C" __global__ void gradients_##name(                                                     \
        const float *weighted_gd, const float *unit_centres_gd, const float *unit_gd,                \
        const float *lengths_g, const float *factors_g, const float *slopes_g, int dim,              \
        float *gradient_gd, O *operand_gd) {                                                         \
        gradients(weighted_gd, unit_centres_gd, unit_gd, lengths_g, factors_g, slopes_g, dim,        \
                  gradient_gd, operand_gd);                                                          \
    }
extern "C" __global__ void losses_(const double *sums_g, const double *cosines_g, const float *lengths_g,
                                   int n_samples, int kind, double m0, double m1, double m2, double m3,
                                   double scale, double weight, float *factors_g, float *slopes_g,
                                   double *figures) {
    losses(sums_g, cosines_g, lengths_g, n_samples, Margin{kind, {m0, m1, m2, m3}}, scale, weight, factors_g,
           slopes_g, figures);
}
#define BOTH(name, W, S, O) UNIT_ROWS(name, W, S, O) UPDATE(name, W, S, O)
BOTH(fff, float, float, float)
BOTH(ffh, float, float, u16)
BOTH(fhf, float, u16, float)
BOTH(fhh, float, u16, u16)
BOTH(hff, u16, float, float)
BOTH(hfh, u16, float, u16)
BOTH(hhf, u16, u16, float)
BOTH(hhh, u16, u16, u16)
EXPONENTIALS(f, float)
EXPONENTIALS(h, u16)
NORMALISE(f, float)
NORMALISE(h, u16)
POSITIVES(ff, float, float)
POSITIVES(fh, float, u16)
POSITIVES(hf, u16, float)
POSITIVES(hh, u16, u16)
GRADIENTS(f, float)
GRADIENTS(h, u16)
