import { UnsupportedError, type ModelConfig } from '@q/config';
import { llama, mistral, qwen2 } from './llama.js';
import type { Architecture, CausalLM } from './model.js';

const architectures: Readonly<Record<string, Architecture<never>>> = { llama, mistral, qwen2 };

/** The architecture of a `model_type`. @throws UnsupportedError that lists the known ones. */
export function architectureOf(modelType: string): Architecture<never> {
  if (Object.hasOwn(architectures, modelType)) return architectures[modelType];
  throw new UnsupportedError('model', `architecture "${modelType}" is not known`, {
    fix: `known: ${Object.keys(architectures).join(', ')}`,
  });
}

/** An empty model of the config's architecture; a loader fills its {@link parameterSlots}. */
export const buildModel = (config: ModelConfig): CausalLM => architectureOf(config.modelType).build(config as never);
