// Colour and size of pictures on a GPU. All arithmetic is float32 and integer, in an order that is
// written out here: compiled without contraction (--fmad=false, -ffp-contract=off) a CUDA device
// and a C++ compiler give the same bytes. The tests hold the C++ twin of this very file to the
// CPU's own conversions.
//
// A picture is a base pointer, a pitch in bytes and, for YUV, a second base pointer with the byte
// offsets of U and V in it: so contiguous yuv420p and nv12 and a video decoder's pitched surfaces
// are all read by the same code. `wide` samples are 16 bits, little endian, the high byte first in
// worth (P010, P016).

struct ToRgb {
    float black, gain, r_v, g_u, g_v, b_u;
};

// One axis of a resampling, for one position of the result: which positions of the source count.
struct Axis {
    int at, from, to;  // position in the result, and both lengths
    int mode;          // for growth: 0 nearest, 1 linear, 2 cubic
    int first, last;   // positions of the source, before they are clamped to its ends
    float a;           // the cubic's parameter
};

__device__ inline unsigned char to_byte(float value) {
    if (!(value > 0.0f)) return 0;
    if (value >= 255.0f) return 255;
    return (unsigned char)(value + 0.5f);
}

__device__ inline int clamped(int value, int most) {
    return value < 0 ? 0 : value > most ? most : value;
}

__device__ inline float sample(const unsigned char *plane, size_t at, int wide) {
    if (wide) return (float)(plane[at] | plane[at + 1] << 8) * (1.0f / 256.0f);
    return (float)plane[at];
}

__device__ inline void as_rgb(float y, float u, float v, const ToRgb &to, float *rgb) {
    float luminance = (y - to.black) * to.gain;
    u -= 128.0f;
    v -= 128.0f;
    rgb[0] = luminance + to.r_v * v;
    rgb[1] = luminance + to.g_u * u + to.g_v * v;
    rgb[2] = luminance + to.b_u * u;
}

__device__ inline Axis axis_of(int at, int from, int to, int mode, float a) {
    Axis axis = {at, from, to, mode, at, at, a};
    if (from > to) {  // every position counts by how much of it is covered
        int begin = at * from, end = begin + from;
        axis.first = begin / to;
        axis.last = (end - 1) / to;
    } else if (from < to) {
        int centre = (2 * at + 1) * from - to;  // in units of 1 / (2 to), maybe negative
        int base = centre < 0 ? -1 : centre / (2 * to);
        if (mode == 0) {
            axis.first = axis.last = at * from / to;
        } else {
            axis.first = mode == 1 ? base : base - 1;
            axis.last = mode == 1 ? base + 1 : base + 2;
        }
    }
    return axis;
}

__device__ inline float cubic(float x, float a) {
    if (x < 0.0f) x = -x;
    if (x < 1.0f) return ((a + 2.0f) * x - (a + 3.0f)) * x * x + 1.0f;
    if (x < 2.0f) return ((a * x - 5.0f * a) * x + 8.0f * a) * x - 4.0f * a;
    return 0.0f;
}

__device__ inline float weight_of(const Axis &axis, int position) {
    if (axis.first == axis.last) return 1.0f;
    if (axis.from > axis.to) {
        int begin = axis.at * axis.from, end = begin + axis.from;
        int low = position * axis.to, high = low + axis.to;
        int covered = (end < high ? end : high) - (begin > low ? begin : low);
        return (float)covered / (float)axis.from;
    }
    int centre = (2 * axis.at + 1) * axis.from - axis.to;
    float away = (float)(centre - 2 * position * axis.to) / (float)(2 * axis.to);
    if (axis.mode == 2) return cubic(away, axis.a);
    return 1.0f - (away < 0.0f ? -away : away);
}

// Weighted sums of up to four channels of one plane. `offsets` are bytes within a step.
__device__ inline void gather(const unsigned char *plane, int pitch, int step, int wide, int left,
                              int top, const Axis &across, const Axis &down, int channels,
                              const int *offsets, float *sums) {
    for (int c = 0; c < channels; c++) sums[c] = 0.0f;
    for (int y = down.first; y <= down.last; y++) {
        float line[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        size_t row = (size_t)(top + clamped(y, down.from - 1)) * pitch;
        for (int x = across.first; x <= across.last; x++) {
            size_t at = row + (size_t)(left + clamped(x, across.from - 1)) * step;
            float weight = weight_of(across, x);
            for (int c = 0; c < channels; c++)
                line[c] += weight * sample(plane, at + offsets[c], wide);
        }
        float weight = weight_of(down, y);
        for (int c = 0; c < channels; c++) sums[c] += weight * line[c];
    }
}

// YUV with halved chroma to interleaved red, green and blue of the same size; chroma is repeated.
// One thread for each block of 2 by 2 pixels.
extern "C" __global__ void yuv_to_rgb(
    unsigned char *out, const unsigned char *luma, const unsigned char *chroma, int width,
    int height, int luma_pitch, int chroma_pitch, int chroma_step, int u_at, int v_at, int wide,
    int blue_first, float black, float gain, float r_v, float g_u, float g_v, float b_u) {
    int bx = blockIdx.x * blockDim.x + threadIdx.x, by = blockIdx.y * blockDim.y + threadIdx.y;
    if (2 * bx >= width || 2 * by >= height) return;
    ToRgb to = {black, gain, r_v, g_u, g_v, b_u};
    size_t at = (size_t)by * chroma_pitch + (size_t)bx * chroma_step;
    float u = sample(chroma, at + u_at, wide), v = sample(chroma, at + v_at, wide);
    for (int y = 2 * by; y < 2 * by + 2 && y < height; y++) {
        for (int x = 2 * bx; x < 2 * bx + 2 && x < width; x++) {
            float rgb[3];
            size_t here = (size_t)y * luma_pitch + ((size_t)x << (wide ? 1 : 0));
            as_rgb(sample(luma, here, wide), u, v, to, rgb);
            unsigned char *pixel = out + ((size_t)y * width + x) * 3;
            for (int c = 0; c < 3; c++) pixel[blue_first ? 2 - c : c] = to_byte(rgb[c]);
        }
    }
}

// Interleaved pixels to YUV with halved chroma, the mean of 2 by 2 pixels. What lies beyond an odd
// picture repeats its last column and row. One thread for each block of 2 by 2 pixels.
extern "C" __global__ void rgb_to_yuv(
    unsigned char *out, const unsigned char *pixels, int width, int height, int channels, int r_at,
    int g_at, int b_at, int out_width, int out_height, int out_pitch, int chroma_pitch, int chroma_step, int u_at,
    int v_at, float black, float y_r, float y_g, float y_b, float u_r, float u_g, float u_b,
    float v_r, float v_g, float v_b) {
    int bx = blockIdx.x * blockDim.x + threadIdx.x, by = blockIdx.y * blockDim.y + threadIdx.y;
    if (2 * bx >= out_width || 2 * by >= out_height) return;
    float red = 0.0f, green = 0.0f, blue = 0.0f;
    for (int y = 2 * by; y < 2 * by + 2; y++) {
        for (int x = 2 * bx; x < 2 * bx + 2; x++) {
            size_t at = ((size_t)clamped(y, height - 1) * width + clamped(x, width - 1)) * channels;
            float r = (float)pixels[at + r_at], g = (float)pixels[at + g_at],
                  b = (float)pixels[at + b_at];
            red += r;
            green += g;
            blue += b;
            out[(size_t)y * out_pitch + x] = to_byte(black + y_r * r + y_g * g + y_b * b);
        }
    }
    red *= 0.25f;
    green *= 0.25f;
    blue *= 0.25f;
    size_t at = (size_t)by * chroma_pitch + (size_t)bx * chroma_step;
    out[at + u_at] = to_byte(128.0f + u_r * red + u_g * green + u_b * blue);
    out[at + v_at] = to_byte(128.0f + v_r * red + v_g * green + v_b * blue);
}

// A part of a picture, scaled, mirrored and laid on a background: interleaved pixels out.
// `channels` of the source: 1 gray, 3, 4 (straight alpha, laid over the background); 0 is YUV.
// One thread for each pixel of the result.
extern "C" __global__ void scale(
    unsigned char *out, const unsigned char *pixels, const unsigned char *chroma, int out_width,
    int out_height, int out_channels, int out_blue_first, int to_x, int to_y, int to_width,
    int to_height, int from_x, int from_y, int from_width, int from_height, int flip_x, int flip_y,
    int channels, int blue_first, int pitch, int chroma_pitch, int chroma_step, int u_at, int v_at,
    int wide, int chroma_mode, float a, float black, float gain, float r_v, float g_u, float g_v,
    float b_u, int back_r, int back_g, int back_b) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= out_width || y >= out_height) return;
    float rgb[3] = {(float)back_r, (float)back_g, (float)back_b};
    float luminance = 0.299f * rgb[0] + 0.587f * rgb[1] + 0.114f * rgb[2];
    int at_x = x - to_x, at_y = y - to_y;
    if (at_x >= 0 && at_y >= 0 && at_x < to_width && at_y < to_height) {
        if (flip_x) at_x = to_width - 1 - at_x;
        if (flip_y) at_y = to_height - 1 - at_y;
        Axis across = axis_of(at_x, from_width, to_width, 2, a);
        Axis down = axis_of(at_y, from_height, to_height, 2, a);
        float sums[4];
        if (channels == 0) {
            int none[1] = {0}, both[2] = {u_at, v_at};
            gather(pixels, pitch, wide ? 2 : 1, wide, from_x, from_y, across, down, 1, none, sums);
            float level = sums[0];
            if (out_channels == 1) {
                luminance = (level - black) * gain;
            } else {
                Axis half_across = axis_of(at_x, from_width / 2, to_width, chroma_mode, a);
                Axis half_down = axis_of(at_y, from_height / 2, to_height, chroma_mode, a);
                gather(chroma, chroma_pitch, chroma_step, wide, from_x / 2, from_y / 2, half_across,
                       half_down, 2, both, sums);
                ToRgb to = {black, gain, r_v, g_u, g_v, b_u};
                as_rgb(level, sums[0], sums[1], to, rgb);
            }
        } else if (channels == 1) {
            int none[1] = {0};
            gather(pixels, pitch, 1, 0, from_x, from_y, across, down, 1, none, sums);
            luminance = rgb[0] = rgb[1] = rgb[2] = sums[0];
        } else if (channels == 3) {
            int order[3] = {blue_first ? 2 : 0, 1, blue_first ? 0 : 2};
            gather(pixels, pitch, 3, 0, from_x, from_y, across, down, 3, order, sums);
            for (int c = 0; c < 3; c++) rgb[c] = sums[c];
            luminance = 0.299f * rgb[0] + 0.587f * rgb[1] + 0.114f * rgb[2];
        } else {
            float behind[3] = {rgb[0], rgb[1], rgb[2]};
            for (int c = 0; c < 3; c++) rgb[c] = 0.0f;
            for (int j = down.first; j <= down.last; j++) {
                size_t row = (size_t)(from_y + clamped(j, from_height - 1)) * pitch;
                float weight_down = weight_of(down, j);
                for (int i = across.first; i <= across.last; i++) {
                    const unsigned char *p =
                        pixels + row + (size_t)(from_x + clamped(i, from_width - 1)) * 4;
                    float weight = weight_down * weight_of(across, i);
                    float alpha = (float)p[3] / 255.0f;
                    for (int c = 0; c < 3; c++)
                        rgb[c] += weight * ((float)p[c] * alpha + behind[c] * (1.0f - alpha));
                }
            }
            luminance = 0.299f * rgb[0] + 0.587f * rgb[1] + 0.114f * rgb[2];
        }
    }
    size_t at = ((size_t)y * out_width + x) * out_channels;
    if (out_channels == 1) {
        out[at] = to_byte(luminance);
    } else {
        for (int c = 0; c < 3; c++) out[at + (out_blue_first ? 2 - c : c)] = to_byte(rgb[c]);
    }
}

// A part of a YUV picture, scaled, mirrored and laid on a background; YUV of the same meaning out,
// of either layout, 8 bits. All positions are even. One thread for each block of 2 by 2 pixels.
extern "C" __global__ void scale_yuv(
    unsigned char *out, const unsigned char *luma, const unsigned char *chroma, int out_width,
    int out_height, int out_pitch, int out_chroma_pitch, int out_chroma_step, int out_u_at, int out_v_at, int to_x,
    int to_y, int to_width, int to_height, int from_x, int from_y, int from_width, int from_height,
    int flip_x, int flip_y, int luma_pitch, int chroma_pitch, int chroma_step, int u_at, int v_at,
    int wide, int chroma_mode, float a, int back_y, int back_u, int back_v) {
    int bx = blockIdx.x * blockDim.x + threadIdx.x, by = blockIdx.y * blockDim.y + threadIdx.y;
    if (2 * bx >= out_width || 2 * by >= out_height) return;
    int none[1] = {0}, both[2] = {u_at, v_at};
    float sums[4];
    for (int y = 2 * by; y < 2 * by + 2; y++) {
        for (int x = 2 * bx; x < 2 * bx + 2; x++) {
            int at_x = x - to_x, at_y = y - to_y;
            sums[0] = (float)back_y;
            if (at_x >= 0 && at_y >= 0 && at_x < to_width && at_y < to_height) {
                if (flip_x) at_x = to_width - 1 - at_x;
                if (flip_y) at_y = to_height - 1 - at_y;
                gather(luma, luma_pitch, wide ? 2 : 1, wide, from_x, from_y,
                       axis_of(at_x, from_width, to_width, 2, a),
                       axis_of(at_y, from_height, to_height, 2, a), 1, none, sums);
            }
            out[(size_t)y * out_pitch + x] = to_byte(sums[0]);
        }
    }
    int at_x = bx - to_x / 2, at_y = by - to_y / 2;
    sums[0] = (float)back_u;
    sums[1] = (float)back_v;
    if (at_x >= 0 && at_y >= 0 && at_x < to_width / 2 && at_y < to_height / 2) {
        if (flip_x) at_x = to_width / 2 - 1 - at_x;
        if (flip_y) at_y = to_height / 2 - 1 - at_y;
        gather(chroma, chroma_pitch, chroma_step, wide, from_x / 2, from_y / 2,
               axis_of(at_x, from_width / 2, to_width / 2, chroma_mode, a),
               axis_of(at_y, from_height / 2, to_height / 2, chroma_mode, a), 2, both, sums);
    }
    size_t at = (size_t)by * out_chroma_pitch + (size_t)bx * out_chroma_step;
    out[at + out_u_at] = to_byte(sums[0]);
    out[at + out_v_at] = to_byte(sums[1]);
}
