import type { HeadNormOptions } from '@q/tensor';
import { RmsNorm } from '../nn/layers.js';
import type { DecoderConfig } from './decoder-config.js';
import type { LayerContext } from './llama-family.js';
import { SelfAttention, separateQkv } from './self-attention.js';

export interface NormedAttentionOptions extends Omit<HeadNormOptions, 'eps'> {
  /** One norm over all heads of queries and one over those of keys; else each head by itself. Default false. */
  readonly acrossHeads?: boolean;
}

/** Llama's attention with norms of queries and keys before they are rotated. */
export const normedAttention =
  ({ acrossHeads = false, ...norms }: NormedAttentionOptions = {}) =>
  ({ name, settings, options }: LayerContext<DecoderConfig>): SelfAttention => {
    const { headDim, numHeads, numKvHeads, rmsNormEps: eps, attentionBias, attentionOutputBias } = settings;
    const parts = separateQkv(settings, { bias: attentionBias, outputBias: attentionOutputBias });
    const norm = (heads: number) => new RmsNorm(`${name}RMSNorm`, acrossHeads ? heads * headDim : headDim, eps);
    const [q, k] = [norm(numHeads), norm(numKvHeads)];
    const { q: q_proj, k: k_proj, v: v_proj, out: o_proj } = parts;
    return new SelfAttention(
      `${name}Attention`,
      { q_proj, k_proj, v_proj, o_proj, q_norm: q, k_norm: k },
      {
        ...parts,
        options: (pass) => ({
          ...options(pass),
          headNorms: { ...norms, eps, query: q.weight.tensor, key: k.weight.tensor },
        }),
      },
    );
  };
