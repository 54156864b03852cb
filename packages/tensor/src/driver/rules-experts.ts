// The rules of the commands of routed experts; see rules.ts.
import { activationKind, floatCode, largestSize, rowsOf, width, type Rules } from './rules-common.js';
import { maxChoices, maxExperts } from './schema.js';

export const expertRules = {
  route: {
    integers: {
      experts: [1, maxExperts],
      choices: [1, maxChoices],
      kind: [0, 2],
      normalize: [0, 1],
      groups: [1, maxExperts],
      topGroups: [1, maxExperts],
    },
    tensors: {
      logits: ['act', 'rows * experts'],
      bias: ['f32', 'experts'],
      chosen: ['i32', 'rows * choices'],
      scores: ['f32', 'rows * choices'],
    },
    where: [
      ['choices <= experts', 'choices must be at most experts'],
      ['experts % groups == 0', 'experts must be a multiple of groups'],
      ['topGroups <= groups', 'topGroups must be at most groups'],
      ['topGroups * (experts / groups) >= choices', 'topGroups hold fewer experts than choices'],
      ['kind == 2 || groups == 1 && !bias', 'groups and bias are for sigmoid'],
      ['groups == 1 || experts / groups >= 2', 'groups must hold two experts or more'],
    ],
    writes: ['chosen', 'scores'],
  },
  expertLinear: {
    integers: {
      experts: [1, maxExperts],
      choices: [1, maxChoices],
      k: [1, largestSize],
      n: [1, largestSize],
      activation: activationKind,
      gated: [0, 1],
      kind: [0, 2],
      weightDtype: floatCode,
      nested: [0, 1],
      quantType: [0, 1],
      computeDtype: floatCode,
    },
    notNegative: ['limit', 'threshold'],
    tensors: { chosen: ['i32', 'rows * choices'], scores: ['f32', 'rows * choices'] },
    where: [
      ['length(parts) == experts || length(parts) == 2 * experts', 'parts must be one or two for each expert'],
      ['!gated || length(parts) == 2 * experts', 'gated takes two parts for each expert, gate and up'],
      [
        '!scores || length(parts) == experts && activation == 0',
        'scores take one part for each expert, and no activation',
      ],
      ['scores || !residual', 'residual is for results with scores'],
      ['kind != 2 || k <= 133152', 'k is above 133152: sums of int8 weights may leave 32 bits'],
    ],
    cases: [
      {
        when: 'scores',
        tensors: { x: ['act', 'rows * choices * k'], out: ['act', 'rows * n'] },
      },
      { when: 'residual', tensors: { residual: ['act', 'rows * n'] } },
      {
        when: '!scores && gated',
        tensors: { x: ['act', 'rows * k'], out: ['act', 'rows * choices * n'] },
      },
      {
        when: '!scores && !gated',
        tensors: { x: ['act', 'rows * k'], out: ['act', 'rows * choices * n * (length(parts) / experts)'] },
      },
      { when: 'kind == 1', integers: { blockSize: [1, largestSize] } },
      { when: 'kind == 1 && nested', integers: { nestedBlockSize: [1, largestSize] } },
    ],
    items: {
      parts: {
        tensors: { bias: ['float', 'n'] },
        where: [['kind != 0 || dtype(weight) == weightDtype', 'weight must have the dtype of the others']],
        cases: [
          { when: 'kind == 0', tensors: { weight: ['float', 'n * k'] } },
          { when: 'kind == 1', tensors: { weight: ['u8', 'ceil(n * k, 2)'] } },
          { when: 'kind == 1 && !nested', tensors: { absmax: ['f32', 'ceil(n * k, blockSize)'] } },
          {
            when: 'kind == 1 && nested',
            tensors: {
              absmax: ['u8', 'ceil(n * k, blockSize)'],
              nestedAbsmax: ['f32', 'ceil(ceil(n * k, blockSize), nestedBlockSize)'],
              nestedCode: ['f32', '256'],
              offset: ['f32', '1'],
            },
          },
          { when: 'kind == 2', tensors: { weight: ['i8', 'n * k'], absmax: ['f32', 'n'] } },
        ],
      },
    },
    writes: ['out'],
    inPlace: [['out', 'residual']],
  },
  mixChoices: {
    integers: { ...width, choices: [1, maxChoices], dtype: floatCode },
    tensors: { x: ['act', 'rows * choices * width'], scores: ['f32', 'rows * choices'], out: rowsOf('act') },
    writes: ['out'],
  },
} as const satisfies Readonly<Record<string, Rules>>;
