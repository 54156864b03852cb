import { packedQkv, type QkvLayout, type Tensor } from '@q/tensor';
import { attend, type SelfAttentionOptions } from '../nn/attention.js';
import { forwardTogether, Linear } from '../nn/linear.js';
import { Module, type Parameter } from '../nn/module.js';
import type { Pass } from '../pass/pass.js';

/** What self attention computes with. */
export interface SelfAttentionParts {
  /** One product, or several whose results lie side by side, or x [T, C] to packed rows. */
  readonly qkv: readonly Linear[] | ((x: Tensor) => Tensor);
  readonly out: Linear;
  /** Where queries, keys and values are in what `qkv` gives. */
  readonly layout: QkvLayout;
  /** Positions, mask and scale in a pass. Default: none, causal, 1 / sqrt(headDim). */
  readonly options?: (pass: Pass) => SelfAttentionOptions;
  /** As many sinks as there are heads, a parameter of its own. Default: none. */
  readonly sinks?: number;
}

/** Self attention of a decoder layer, under the names of an architecture. */
export class SelfAttention extends Module {
  readonly #sinks: Parameter | undefined;

  /** @param children in Python's order; those of `parts` among them */
  constructor(
    readonly className: string,
    children: Readonly<Record<string, Module>>,
    private readonly parts: SelfAttentionParts,
  ) {
    super();
    this.childrenNamed(children);
    if (parts.sinks !== undefined) this.#sinks = this.parameter('sinks', [parts.sinks]);
  }

  // x, residual [T, C] → attention(x) (+ residual)
  forward(x: Tensor, index: number, pass: Pass, residual?: Tensor): Tensor {
    const { qkv, out, layout, options } = this.parts;
    const packed = typeof qkv === 'function' ? qkv(x) : forwardTogether(qkv, x);
    const sinks = this.#sinks && { sinks: this.#sinks.tensor };
    const mixed = attend(packed, index, pass, layout, { ...options?.(pass), ...sinks }); // [T, H D]
    return out.forward(mixed, { residual });
  }
}

/** Heads of an attention. */
export interface AttentionShape {
  readonly hiddenSize: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
}

/** Queries, keys and values by a product each. */
export interface SeparateQkv extends SelfAttentionParts {
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
}

/**
 * The products of an attention with heads of one size.
 * @param options.bias of q, k and v; default false
 * @param options.outputBias of the output; default as the others
 */
export function separateQkv(
  { hiddenSize, numHeads, numKvHeads, headDim }: AttentionShape,
  { bias = false, outputBias = bias }: { bias?: boolean; outputBias?: boolean } = {},
): SeparateQkv {
  const q = new Linear(hiddenSize, numHeads * headDim, { bias });
  const k = new Linear(hiddenSize, numKvHeads * headDim, { bias });
  const v = new Linear(hiddenSize, numKvHeads * headDim, { bias });
  const out = new Linear(numHeads * headDim, hiddenSize, { bias: outputBias });
  return { q, k, v, out, qkv: [q, k, v], layout: packedQkv(numHeads, numKvHeads, headDim) };
}
