import { z } from 'zod';

/** Canonical activation names; gelu_tanh is the tanh approximation under all of its names. */
export type Activation = 'silu' | 'gelu' | 'gelu_tanh' | 'quick_gelu' | 'relu';

const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  silu: 'silu',
  swish: 'silu',
  gelu: 'gelu',
  gelu_new: 'gelu_tanh',
  gelu_pytorch_tanh: 'gelu_tanh',
  gelu_fast: 'gelu_tanh',
  quick_gelu: 'quick_gelu',
  relu: 'relu',
};

/** Reads the name of an activation function. */
export const activation = z
  .enum(Object.keys(ACTIVATIONS), { error: `must be one of ${Object.keys(ACTIVATIONS).join(', ')}` })
  .transform((name) => ACTIVATIONS[name]);
