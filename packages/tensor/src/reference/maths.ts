/** Rounds halves to the even integer, as IEEE 754 and CUDA's __float2int_rn do. */
export function roundEven(value: number): number {
  const floor = Math.floor(value);
  const fraction = value - floor;
  if (fraction !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Error function, to double precision: Taylor series near 0, continued fraction of erfc in the tails. */
export function erf(x: number): number {
  const a = Math.abs(x);
  if (a > 6) return Math.sign(x);
  if (a < 2.5) {
    let term = a;
    let sum = a;
    for (let n = 1; Math.abs(term) > 1e-18 * sum && n < 200; n++) {
      term *= (-a * a) / n;
      sum += term / (2 * n + 1);
    }
    return (Math.sign(x) * 2 * sum) / Math.sqrt(Math.PI);
  }
  let fraction = 0;
  for (let n = 60; n >= 1; n--) fraction = n / 2 / (a + fraction);
  return Math.sign(x) * (1 - Math.exp(-a * a) / Math.sqrt(Math.PI) / (a + fraction));
}

export const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

/** kind(gate) · (up + upOffset), both within their limits, and rounded; NaN stays. */
export function gated(
  { kind, limit, upOffset }: { kind: number; limit: number; upOffset: number },
  gate: number,
  up: number,
  round: (value: number) => number = (value) => value,
): number {
  const [g, u] = limit > 0 ? [Math.min(gate, limit), Math.max(Math.min(up, limit), -limit)] : [gate, up];
  return round(activations[kind](g)) * round(u + upOffset);
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

/** Activation functions in the order of `activationKinds`. */
export const activations: readonly ((x: number) => number)[] = [
  (x) => x,
  (x) => x * sigmoid(x),
  (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  (x) => Math.max(x, 0),
  (x) => x * sigmoid(1.702 * x),
  sigmoid,
  Math.tanh,
];

/** Softmax of a list, minus infinity allowed. */
export function softmaxOf(scores: readonly number[]): number[] {
  const max = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const weights = scores.map((score) => (score === -Infinity ? 0 : Math.exp(score - max)));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / sum);
}

const multiply = (a: number, b: number): [high: number, low: number] => {
  const product = BigInt(a) * BigInt(b);
  return [Number(product >> 32n), Number(product & 0xffffffffn)];
};

/** Philox4x32-10 (Salmon et al. 2011): four 32-bit words from a counter and a key. */
export function philox(counter: readonly [number, number, number, number], key: readonly [number, number]): number[] {
  let [c0, c1, c2, c3] = counter.map((word) => word >>> 0);
  let [k0, k1] = key.map((word) => word >>> 0);
  for (let round = 0; round < 10; round++) {
    const [h0, l0] = multiply(0xd2511f53, c0);
    const [h1, l1] = multiply(0xcd9e8d57, c2);
    [c0, c1, c2, c3] = [(h1 ^ c1 ^ k0) >>> 0, l1, (h0 ^ c3 ^ k1) >>> 0, l0];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}
