// The head's kernels, compiled when a GPU is first used. Names of arrays end in their axes: C = rows
// of the rank, D = embedding, N = numbers of a row's state, T = rows of the tile, G = global batch.
//
// A block works on one row of the tile. Sums are taken in an order that the number of threads of a
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

// The sum over the block, in all threads; their number is a power of two.
__device__ __forceinline__ float block_sum(float value, float *scratch) {
    scratch[threadIdx.x] = value;
    __syncthreads();
    for (u32 width = blockDim.x / 2; width > 0; width /= 2) {
        if (threadIdx.x < width) scratch[threadIdx.x] += scratch[threadIdx.x + width];
        __syncthreads();
    }
    const float sum = scratch[0];
    __syncthreads();
    return sum;
}

// Maps of weight and momentum that stand for the steps that a row has missed.
struct UpdateMap {
    float ww, wv, vw, vv;
};

template <typename W, typename S>
__device__ __forceinline__ float weight_now(const W *weight_cd, const S *state_cn, i64 at,
                                            const UpdateMap *missed_t) {
    const float w = load(weight_cd, at);
    if (missed_t == nullptr) return w;
    const UpdateMap flow = missed_t[blockIdx.x];
    return flow.ww * w + flow.wv * load(state_cn, at);
}

extern __shared__ float shared[];

#define LENGTH_LEAST 1e-12f

template <typename W, typename S, typename O>
__device__ void unit_rows(const W *weight_cd, const S *state_cn, const i64 *rows_t,
                          const UpdateMap *missed_t, int dim, O *unit_td) {
    const i64 from = rows_t[blockIdx.x] * dim, to = static_cast<i64>(blockIdx.x) * dim;
    float squares = 0;
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
        const float w = weight_now(weight_cd, state_cn, from + i, missed_t);
        squares += w * w;
    }
    const float inverse = 1.0f / fmaxf(sqrtf(block_sum(squares, shared)), LENGTH_LEAST);
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
        store(unit_td, to + i, weight_now(weight_cd, state_cn, from + i, missed_t) * inverse);
    }
}

// A thread takes one sample, a block stretches of rows: of its own number, and of every further one that
// is larger by the number of blocks in y. `sums_kg` has a row for each stretch.
template <typename O>
__device__ void exponentials(const O *cos_tg, const int *own_g, const float *offsets_g, float scale,
                             float filter, int n_rows, int n_samples, int stretch_rows, O *exp_tg,
                             float *sums_kg) {
    const int g = blockIdx.x * blockDim.x + threadIdx.x;
    if (g >= n_samples) return;
    const float offset = offsets_g == nullptr ? 0.0f : offsets_g[g];
    const int n_stretches = n_rows / stretch_rows + 1;
    for (int stretch = blockIdx.y; stretch < n_stretches; stretch += gridDim.y) {
        const int first = stretch * stretch_rows;
        float sum = 0;
        for (int t = first; t < min(first + stretch_rows, n_rows); t++) {
            const i64 at = static_cast<i64>(t) * n_samples + g;
            const float cosine = fminf(fmaxf(load(cos_tg, at), -1.0f), 1.0f);
            const bool is_noise = filter > 0.0f && cosine > filter;
            const float e =
                own_g[g] == t ? 0.0f : expf((is_noise ? 0.0f : cosine) * scale - offset);
            sum += e;
            // Noise stays in the sum as cosine 0 and passes nothing back.
            store(exp_tg, at, is_noise ? 0.0f : e);
        }
        sums_kg[static_cast<i64>(stretch) * n_samples + g] = sum;
    }
}

enum { SGD = 0, ADAMW = 1, ROW_ADAGRAD = 2 };

// By optimizer: lr, momentum, decay; lr / correction1, beta1, beta2, eps, 1 - lr * decay,
// 1 / sqrt(correction2); lr, eps, decay.
struct Motion {
    float of[6];
};

// What the samples of a row's own class add to its gradient: the pulls `begin_t[t]` to
// `begin_t[t + 1]`.
struct Pulls {
    const int *begin_t, *samples_o;
    const float *slopes_o, *unit_embeddings_gd;
};

template <typename W, typename S, typename O>
__device__ void update(W *weight_cd, S *state_cn, const i64 *rows_t, const UpdateMap *missed_t, int dim,
                       int n_state, const O *negatives_td, Pulls pulls, u64 key_base, int optimizer,
                       Motion motion) {
    float *scratch = shared, *w = scratch + blockDim.x, *g = w + dim;
    const i64 at_w = rows_t[blockIdx.x] * dim, at_s = rows_t[blockIdx.x] * n_state;
    const i64 at_g = static_cast<i64>(blockIdx.x) * dim;
    const u64 key = scramble(key_base + static_cast<u64>(rows_t[blockIdx.x]));
    float squares = 0, along = 0;
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
        w[i] = weight_now(weight_cd, state_cn, at_w + i, missed_t);
        float sum = load(negatives_td, at_g + i);
        for (int o = pulls.begin_t[blockIdx.x]; o < pulls.begin_t[blockIdx.x + 1]; o++) {
            const i64 at_e = static_cast<i64>(pulls.samples_o[o]) * dim;
            sum += pulls.slopes_o[o] * pulls.unit_embeddings_gd[at_e + i];
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
            if (missed_t != nullptr) {
                const UpdateMap flow = missed_t[blockIdx.x];
                v = flow.vw * load(weight_cd, at_w + i) + flow.vv * v;
            }
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
}

// A function for each number format of weights, state and products: f is f32, h is bf16.
#define UNIT_ROWS(name, W, S, O)                                                                     \
    extern "C" __global__ void unit_rows_##name(const W *weight_cd, const S *state_cn,               \
                                                const i64 *rows_t, const UpdateMap *missed_t, int dim,    \
                                                O *unit_td) {                                        \
        unit_rows(weight_cd, state_cn, rows_t, missed_t, dim, unit_td);                              \
    }
#define UPDATE(name, W, S, O)                                                                        \
    extern "C" __global__ void update_##name(                                                        \
        W *weight_cd, S *state_cn, const i64 *rows_t, const UpdateMap *missed_t, int dim, int n_state,    \
        const O *negatives_td, const int *begin_t, const int *samples_o, const float *slopes_o,      \
        const float *unit_embeddings_gd, u64 key_base, int optimizer, float m0, float m1,       \
        float m2, float m3, float m4, float m5) {                                                    \
        update(weight_cd, state_cn, rows_t, missed_t, dim, n_state, negatives_td,                    \
               Pulls{begin_t, samples_o, slopes_o, unit_embeddings_gd}, key_base, optimizer,           \
               Motion{{m0, m1, m2, m3, m4, m5}});                                                    \
    }
#define EXPONENTIALS(name, O)                                                                        \
    extern "C" __global__ void exponentials_##name(                                                  \
        const O *cos_tg, const int *own_g, const float *offsets_g, float scale, float filter,        \
        int n_rows, int n_samples, int stretch_rows, O *exp_tg, float *sums_kg) {                    \
        exponentials(cos_tg, own_g, offsets_g, scale, filter, n_rows, n_samples, stretch_rows,       \
                     exp_tg, sums_kg);                                                               \
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
