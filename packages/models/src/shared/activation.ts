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

const CLASSES: Readonly<Record<string, string>> = {
  silu: 'SiLUActivation',
  swish: 'SiLU',
  gelu: 'GELUActivation',
  gelu_new: 'NewGELUActivation',
  gelu_pytorch_tanh: 'GELUTanh',
  gelu_fast: 'FastGELUActivation',
  quick_gelu: 'QuickGELUActivation',
  relu: 'ReLU',
};

/** The Python class behind the name of an activation function in a file; several names compute the same. */
export const activationClass = (name: string): string => CLASSES[name];
