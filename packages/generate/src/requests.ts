import { assertInteger, ConfigError, describeValue } from '@q/config';
import { isEncoderDecoder, type CausalLM } from '@q/models';
import type { GenerationRequest } from './options.js';

/**
 * @param name of the list, as the caller wrote it
 * @throws ConfigError unless it is a list of token ids of the vocabulary
 */
export function assertTokenIds(
  op: string,
  name: string,
  ids: unknown,
  vocabSize: number,
): asserts ids is readonly number[] {
  if (!Array.isArray(ids))
    throw new ConfigError(op, `${name} is ${describeValue(ids)}`, { fix: 'give a list of token ids' });
  for (let i = 0; i < ids.length; i++) {
    const id: unknown = ids[i];
    if (typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < vocabSize) continue;
    throw new ConfigError(op, `${name}[${i}]: ${describeValue(id)} is no token id of this model`, {
      vocabSize,
      why: `token ids are numbers from 0 to ${vocabSize - 1}`,
    });
  }
}

/** @throws ConfigError when so many tokens are more than the model's positions reach. */
export function assertFits(
  op: string,
  name: string,
  tokens: number,
  { maxContext }: Pick<CausalLM, 'maxContext'>,
): void {
  if (tokens <= maxContext) return;
  throw new ConfigError(op, `${name} has ${tokens} tokens`, {
    why: `the context of this model has ${maxContext}`,
    fix: 'shorten it',
  });
}

/** @throws ConfigError for what this model cannot run. */
export function checkRequests(requests: readonly GenerationRequest[], model: CausalLM): void {
  if (requests.length === 0) throw new ConfigError('generate', 'there is no prompt', { fix: 'give at least one' });
  for (const [index, request] of requests.entries()) {
    const { ids, maxNewTokens, stopStrings, sampling, forcedLastTokenId } = request;
    checkSource(index, request, model);
    assertTokenIds('generate', `prompt ${index}`, ids, model.vocabSize);
    if (ids.length === 0)
      throw new ConfigError('generate', `prompt ${index} has no tokens`, {
        fix: 'give at least one token, such as the beginning-of-sequence token',
      });
    assertInteger('generate', 'maxNewTokens', maxNewTokens);
    if (forcedLastTokenId !== undefined)
      assertInteger('generate', 'forcedEosTokenId', forcedLastTokenId, { min: 0, max: model.vocabSize - 1 });
    assertInteger('generate', 'seed', sampling.seed, { min: 0 });
    if (stopStrings.includes(''))
      throw new ConfigError('generate', 'stopStrings holds an empty text', {
        why: 'it would stop before the first token',
      });
    checkContext(ids.length, maxNewTokens, model.maxContext);
  }
}

/** What only encoder-decoders have, and what they must have. */
function checkSource(index: number, { encoderIds, forcedFirstTokenId }: GenerationRequest, model: CausalLM): void {
  if (forcedFirstTokenId !== undefined)
    assertInteger('generate', 'forcedBosTokenId', forcedFirstTokenId, { min: 0, max: model.vocabSize - 1 });
  if (!isEncoderDecoder(model)) {
    if (encoderIds === undefined) return;
    throw new ConfigError('generate', `prompt ${index} has ids for an encoder`, {
      why: `${model.className} has none`,
      fix: 'leave out encoderIds',
    });
  }
  assertTokenIds('generate', `prompt ${index}`, encoderIds, model.vocabSize);
  if (encoderIds.length === 0)
    throw new ConfigError('generate', `prompt ${index} has no tokens`, {
      fix: 'give at least one token, such as the end-of-sequence token',
    });
  assertFits('generate', `prompt ${index}`, encoderIds.length, model);
}

function checkContext(prompt: number, maxNewTokens: number, maxContext: number): void {
  const room = maxContext - prompt;
  if (maxNewTokens <= room) return;
  if (room <= 0)
    throw new ConfigError('generate', `the prompt has ${prompt} tokens`, {
      why: `the context of this model has ${maxContext}, which leaves no room for a new one`,
      fix: 'shorten the prompt',
    });
  throw new ConfigError('generate', 'prompt and new tokens do not fit into the context', {
    prompt,
    maxNewTokens,
    maxContext,
    fix: `lower maxNewTokens to ${room} or shorten the prompt`,
  });
}
