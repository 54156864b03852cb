import { afterAll, describe, expect, it } from 'vitest';
import { type Case, canonical, cases, runners } from './testing/golden.js';

/** Why a case may differ: the result of Python is an accident there, and what happens here instead. */
const quirks: Readonly<Record<string, string>> = {
  missing_device:
    'Python fails on balanced_low_0 with GPU ids that are not 0..n-1; here the lowest id is the one kept empty',
  disk_in_max_memory: 'accelerate cannot balance when disk has a budget; here disk is no GPU and does not count',
  not_a_size:
    'fallback allocation fails in Python when a size has a fraction (int4, bool); here a fraction is a number',
  tied_module_not_found:
    'Python fails when a tied parameter belongs to the root, or was placed or passed over before; here it is found or left',
  no_split_class_absent:
    'transformers 5 fails when no module has a no-split class; here there is then no block to make room for',
  'python-float': 'Python reads "inf" and "1e400" as numbers and then fails; here they are no sizes',
};

const byKind = new Map<string, Case[]>();
for (const golden of cases) {
  const name = golden.wiring === undefined ? golden.kind : `${golden.kind} (${golden.wiring})`;
  byKind.set(name, [...(byKind.get(name) ?? []), golden]);
}

const text = (value: unknown): string => JSON.stringify(canonical(value));

const different = (golden: Case): boolean => text(runners[golden.kind]!(golden)) !== text(golden.expect);

const counts: string[] = [];
const listed: string[] = [];

describe('the results of accelerate 1.15.0 and transformers 5.17.0', () => {
  it('has cases of every kind', () => {
    expect([...new Set(cases.map(({ kind }) => kind))].sort()).toEqual(Object.keys(runners).sort());
    expect(cases.length).toBeGreaterThan(4000);
  });

  it.each([...byKind.keys()])('%s', (kind) => {
    const all = byKind.get(kind)!;
    expect(all.length).toBeGreaterThan(0);
    const differing = all.filter(different);
    for (const { id, quirk } of differing) listed.push(`${id}: ${quirk ?? 'NO REASON'}`);
    counts.push(`${kind}: ${all.length} cases, ${differing.length} differ for a documented reason`);
    const unexplained = differing.filter(({ quirk }) => quirk === undefined || !Object.hasOwn(quirks, quirk));
    const [first] = unexplained;
    if (first !== undefined) expect(canonical(runners[first.kind]!(first)), first.id).toEqual(canonical(first.expect));
    expect(unexplained).toHaveLength(0);
  });

  it('answers where Python fails by accident', () => {
    const accidents = cases.filter(
      ({ kind, quirk }) => kind === 'plan' && quirk !== undefined && quirk !== 'substring',
    );
    expect(accidents.length).toBeGreaterThan(0);
    for (const golden of accidents)
      expect(Object.keys(runners.plan!(golden) as object), golden.id).not.toContain('error');
  });

  afterAll(() => {
    const used = Object.entries(quirks).map(([quirk, reason]) => `  ${quirk}: ${reason}`);
    console.log(
      [
        'golden cases',
        ...counts,
        `total: ${cases.length}`,
        'cases that differ',
        ...listed.map((line) => `  ${line}`),
        'reasons',
        ...used,
      ].join('\n'),
    );
  });
});
