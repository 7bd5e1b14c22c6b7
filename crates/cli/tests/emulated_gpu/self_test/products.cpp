// Products by cuBLASLt, against sums in double precision.
#include "harness.h"

namespace {

template <class T>
void set_attribute(const char* function, void* of, int attribute, T value) {
    must(call(products, function, of, attribute, static_cast<const void*>(&value), sizeof value), function);
}

struct ProductTest {
    int m, n, k, batches;
    bool transpose_a, transpose_b, bf16_in, bf16_out;
    float alpha, beta;
    unsigned epilogue;
    bool bf16_bias;
};

template <class In, class Out, class Bias>
void product(const ProductTest& t, In (*in)(float), float (*from_in)(In), Out (*out)(float), float (*from_out)(Out),
             float (*from_bias)(Bias), Bias (*to_bias)(float)) {
    int a_rows = t.transpose_a ? t.k : t.m, a_columns = t.transpose_a ? t.m : t.k;
    int b_rows = t.transpose_b ? t.n : t.k, b_columns = t.transpose_b ? t.k : t.n;
    int lda = a_rows + 3, ldb = b_rows + 1, ldc = t.m + 2, bias_length = t.m;
    std::size_t a_step = lda * a_columns, b_step = ldb * b_columns, c_step = ldc * t.n;
    std::vector<In> a, b;
    std::vector<Out> c;
    std::vector<Bias> bias;
    for (float value : random_values(a_step * t.batches, 6)) a.push_back(in(value));
    for (float value : random_values(b_step * t.batches, 7)) b.push_back(in(value));
    for (float value : random_values(c_step * t.batches, 8)) c.push_back(out(t.beta == 0 ? NAN : value));
    for (float value : random_values(bias_length, 9)) bias.push_back(to_bias(value));
    Buffer<In> device_a(a), device_b(b);
    Buffer<Out> device_c(c);
    Buffer<Bias> device_bias(bias);
    Buffer<char> workspace(1 << 16);

    void *handle, *description, *layouts[3], *preference;
    must(call(products, "cublasLtCreate", &handle), "cublasLtCreate");
    must(call(products, "cublasLtMatmulDescCreate", &description, 68, 0), "cublasLtMatmulDescCreate");
    const char* set = "cublasLtMatmulDescSetAttribute";
    set_attribute<std::int32_t>(set, description, 3, t.transpose_a);
    set_attribute<std::int32_t>(set, description, 4, t.transpose_b);
    set_attribute<std::uint32_t>(set, description, 7, t.epilogue);
    if (t.epilogue != 1) {
        set_attribute<std::uint64_t>(set, description, 8, device_bias.address);
        set_attribute<std::int32_t>(set, description, 26, t.bf16_bias ? 14 : 0);
    }
    int in_type = t.bf16_in ? 14 : 0, out_type = t.bf16_out ? 14 : 0;
    std::uint64_t rows[] = {std::uint64_t(a_rows), std::uint64_t(b_rows), std::uint64_t(t.m)};
    std::uint64_t columns[] = {std::uint64_t(a_columns), std::uint64_t(b_columns), std::uint64_t(t.n)};
    std::int64_t lds[] = {lda, ldb, ldc}, steps[] = {std::int64_t(a_step), std::int64_t(b_step), std::int64_t(c_step)};
    for (int i = 0; i < 3; ++i) {
        must(call(products, "cublasLtMatrixLayoutCreate", &layouts[i], i == 2 ? out_type : in_type, rows[i], columns[i],
                  lds[i]),
             "cublasLtMatrixLayoutCreate");
        set_attribute<std::int32_t>("cublasLtMatrixLayoutSetAttribute", layouts[i], 5, t.batches);
        set_attribute<std::int64_t>("cublasLtMatrixLayoutSetAttribute", layouts[i], 6, steps[i]);
    }
    must(call(products, "cublasLtMatmulPreferenceCreate", &preference), "cublasLtMatmulPreferenceCreate");
    set_attribute<std::uint64_t>("cublasLtMatmulPreferenceSetAttribute", preference, 1, 1 << 16);
    char result[64 + 8 + 4 + 4 + 16];
    int found = 0;
    must(call(products, "cublasLtMatmulAlgoGetHeuristic", handle, description, layouts[0], layouts[1], layouts[2],
              layouts[2], preference, 1, static_cast<void*>(result), &found),
         "cublasLtMatmulAlgoGetHeuristic");
    expect(found == 1, "the heuristic finds an algorithm");
    must(call(products, "cublasLtMatmul", handle, description, &t.alpha, device_a.address, layouts[0], device_b.address,
              layouts[1], &t.beta, device_c.address, layouts[2], device_c.address, layouts[2],
              static_cast<const void*>(result), workspace.address, std::size_t{1 << 16}, static_cast<void*>(nullptr)),
         "cublasLtMatmul");
    for (void* layout : layouts) call(products, "cublasLtMatrixLayoutDestroy", layout);
    call(products, "cublasLtMatmulPreferenceDestroy", preference);
    call(products, "cublasLtMatmulDescDestroy", description);
    call(products, "cublasLtDestroy", handle);

    auto op_a = [&](int batch, int i, int k) {
        return from_in(a[batch * a_step + (t.transpose_a ? i * lda + k : k * lda + i)]);
    };
    auto op_b = [&](int batch, int k, int j) {
        return from_in(b[batch * b_step + (t.transpose_b ? k * ldb + j : j * ldb + k)]);
    };
    std::vector<Out> got = device_c.values();
    char text[160];
    std::snprintf(text, sizeof text,
                  "product %d %d %d x%d, transposed %d %d, bf16 %d %d, alpha %g beta %g, epilogue %u", t.m, t.n, t.k,
                  t.batches, t.transpose_a, t.transpose_b, t.bf16_in, t.bf16_out, t.alpha, t.beta, t.epilogue);
    bool good = true;
    for (int batch = 0; batch < t.batches; ++batch) {
        for (int j = 0; j < t.n; ++j) {
            for (int i = 0; i < t.m; ++i) {
                double sum = 0;
                for (int k = 0; k < t.k; ++k) sum += static_cast<double>(op_a(batch, i, k)) * op_b(batch, k, j);
                sum *= t.alpha;
                std::size_t at = batch * c_step + j * ldc + i;
                if (t.beta != 0) sum += t.beta * from_out(c[at]);
                if (t.epilogue == 4) sum += from_bias(bias[i]);
                good = good && close(from_out(got[at]), static_cast<float>(sum), t.bf16_out ? 5e-3f : 1e-4f);
            }
        }
    }
    expect(good, text);
}

float same(float x) { return x; }

void product(const ProductTest& t) {
    auto with_bias = [&](auto in, auto from_in, auto out, auto from_out) {
        if (t.bf16_bias) {
            product(t, in, from_in, out, from_out, &wide, &bf16);
        } else {
            product(t, in, from_in, out, from_out, &same, &same);
        }
    };
    if (!t.bf16_in) {
        with_bias(&same, &same, &same, &same);
    } else if (t.bf16_out) {
        with_bias(&bf16, &wide, &bf16, &wide);
    } else {
        with_bias(&bf16, &wide, &same, &same);
    }
}

}  // namespace

void all_products() {
    for (int variant = 0; variant < 4; ++variant) {
        bool transpose_a = variant & 1, transpose_b = variant & 2;
        for (unsigned epilogue : {1u, 4u}) {
            product({37, 29, 53, 1, transpose_a, transpose_b, true, false, 1, 0, epilogue, false});
            product({17, 70, 300, 1, transpose_a, transpose_b, true, true, 0.5f, 1, epilogue, true});
            product({64, 6, 8, 1, transpose_a, transpose_b, false, false, 1, 1, epilogue, false});
        }
        product({20, 30, 40, 3, transpose_a, transpose_b, true, true, 1, 0, 1, false});
        product({5, 7, 9, 4, transpose_a, transpose_b, false, false, 2, 1, 4, false});
        product({300, 401, 270, 1, transpose_a, transpose_b, true, false, 1, 1, 1, false});
    }
}
