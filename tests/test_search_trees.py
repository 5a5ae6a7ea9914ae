"""Random trees of states: whatever grows from a state, the state stays what it was and gives what it gave."""

import tempfile
from pathlib import Path

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tiny_models import make_conditioning, make_tiny_model

from ttsvar_core.decoding import decode
from ttsvar_core.extractors.latent_pool import LatentPool
from ttsvar_core.footprint import cache_bytes
from ttsvar_core.sampling import replay, sample
from ttsvar_core.search.cluster import Cluster
from ttsvar_core.search.memory import Sampler
from ttsvar_core.search.resample import Resample
from ttsvar_core.search.save import load_state, save_state
from ttsvar_core.search.score import Score, best
from ttsvar_core.search.view import act
from ttsvar_core.state import start

MODEL = make_tiny_model(schedule="1 2 2 3 4")
CONDITIONING = make_conditioning()
LAST = 4


class Redness:
    name = "redness"
    range = (0.0, 1.0)

    def score(self, images, prompt):
        return images[..., 0].mean(dim=(1, 2)) - images[..., 1].mean(dim=(1, 2))


def content(state):
    """Everything a state holds, as copies that nothing else can change."""
    cache = state.cache and tuple(
        (None if chunk.rows is None else chunk.rows.clone(), *(part.clone() for part in (*chunk.keys, *chunk.values)))
        for chunk in state.cache.chunks
    )
    tensors = (*state.bits, state.features, state.scores.nan_to_num(-7.0), state.log_weights)
    return tuple(t.clone() for t in tensors), cache, state.next_scale, repr(state.lineage), state.steps, state.seed


def equal(one, two):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, tuple):
        return type(one) is type(two) and len(one) == len(two) and all(map(equal, one, two))
    return one == two


class Trees(RuleBasedStateMachine):
    """Grows states from any earlier state and remembers what each one held when it was made, and what it gave."""

    def __init__(self):
        super().__init__()
        self.nodes, self.held, self.gave = [], [], []
        self.folder = tempfile.TemporaryDirectory()

    def teardown(self):
        for index in range(len(self.nodes)):
            self.gives_what_it_gave(index)
        self.folder.cleanup()

    def gives_what_it_gave(self, index):
        if self.gave[index] is not None:
            through, candidates, expected = self.gave[index]
            assert equal(content(sample(self.nodes[index], through, candidates=candidates)), expected)

    def grow(self, state):
        self.nodes.append(state)
        self.held.append(content(state))
        self.gave.append(None)

    def pick(self, data, ready=lambda state: True):
        """The index of some earlier state for which `ready` holds, or None."""
        indices = [index for index, state in enumerate(self.nodes) if ready(state)]
        return data.draw(st.sampled_from(indices)) if indices else None

    @rule(samples=st.integers(1, 4), seed=st.sampled_from([0, 3, 2**64 - 1]))
    def plant(self, samples, seed):
        self.grow(start(MODEL, CONDITIONING, samples, seed))

    @precondition(lambda self: self.nodes)
    @rule(data=st.data(), policy=st.sampled_from(["keep", "cpu", "drop"]))
    def sample_on(self, data, policy):
        index = self.pick(data, lambda state: not state.finished)
        if index is not None:
            through = data.draw(st.integers(self.nodes[index].next_scale, LAST))
            state, candidates = self.nodes[index], data.draw(st.sampled_from([1, 1, 2, 3]))
            grown = sample(state, through, cache_policy=policy, candidates=candidates)
            if policy == "keep":
                self.gave[index] = (through, candidates, content(grown))
            self.branches_as_it_should(state, grown, sample(state, through), candidates)
            self.grow(grown)

    def branches_as_it_should(self, state, grown, plain, candidates):
        """Candidates share all but the last scale, the first of each is drawn as without them, nothing is stored twice."""
        count = state.samples
        assert grown.samples == candidates * count and equal(grown.select(range(count)).bits, plain.bits)
        rows = list(range(count)) * candidates
        assert equal(tuple(bits[rows] for bits in plain.bits[:-1]), grown.bits[:-1])
        assert torch.equal(grown.log_weights, state.log_weights[rows])
        assert torch.equal(grown.scores.nan_to_num(-7.0), state.scores[rows].nan_to_num(-7.0))
        if grown.cache is not None:
            assert grown.cache.nbytes == sample(state, grown.last_scale, cache_policy="keep").cache.nbytes

    @precondition(lambda self: self.nodes)
    @rule(data=st.data(), candidates=st.sampled_from([1, 2, 3]), size=st.integers(1, 3))
    def sample_in_turns(self, data, candidates, size):
        """Groups one after another, each with its own cache: the same draws, so the same bits but where rounding decides."""
        index = self.pick(data, lambda state: not state.finished)
        if index is None:
            return
        state = self.nodes[index]
        through = data.draw(st.integers(state.next_scale, LAST))
        sampler = Sampler(max_cache_bytes=size * cache_bytes(MODEL, state.schedule, LAST))
        grown, whole = sampler.in_turns(state, through, candidates), sample(state, through, candidates=candidates)
        assert grown.lineage == whole.lineage or repr(grown.lineage) == repr(whole.lineage)
        assert grown.cache is None and grown.samples == whole.samples and grown.steps == whole.steps
        flipped = sum(int((a != b).sum()) for a, b in zip(grown.bits, whole.bits, strict=True))
        assert flipped <= 1e-3 * sum(bits.numel() for bits in whole.bits) + 1
        self.grow(grown)

    @precondition(lambda self: self.nodes)
    @rule(data=st.data())
    def select_rows(self, data):
        state = self.nodes[self.pick(data)]
        rows = data.draw(st.lists(st.integers(0, state.samples - 1), min_size=1, max_size=5))
        grown = state.select(rows)
        for one, two in zip(grown.bits, state.bits, strict=True):
            assert torch.equal(one, two[rows])
        assert torch.equal(grown.log_weights, state.log_weights[rows])
        assert torch.equal(decode(grown), decode(state)[rows])
        self.grow(grown)

    @precondition(lambda self: self.nodes)
    @rule(data=st.data(), how=st.sampled_from(["cluster", "potential", "best"]))
    def search(self, data, how):
        index = self.pick(data, lambda state: state.next_scale > 0)
        if index is None:
            return
        scale = self.nodes[index].last_scale
        state, _ = act(self.nodes[index], Score(scale), Redness())
        self.grow(state)
        keep = data.draw(st.integers(1, state.samples))
        if how == "cluster":
            grown, selection = act(state, Cluster(scale, keep), extractor=LatentPool(grid=2))
        elif how == "potential":
            scheme, threshold = data.draw(st.sampled_from(["multinomial", "residual"])), data.draw(st.sampled_from([None, 0.5]))
            grown, selection = act(state, Resample(scale, keep, scheme=scheme, ess_threshold=threshold))
        else:
            selection = best(state, keep)
            grown = state.select(selection)
        weights = selection.log_weights if how == "potential" else state.log_weights
        spent = torch.zeros(keep, dtype=torch.float64)
        assert torch.equal(grown.log_weights, spent if selection.resampled else weights[selection.ancestors])
        self.grow(grown)

    @precondition(lambda self: self.nodes)
    @rule(data=st.data())
    def drop_and_replay(self, data):
        index = self.pick(data, lambda state: 0 < state.next_scale <= LAST)
        if index is None:
            return
        state = self.nodes[index]
        self.grow(state.without_cache())
        again = replay(state.without_cache())
        if state.cache is not None:
            for layer in range(MODEL.config.transformer.depth):
                for ours, theirs in zip(again.cache.layer(layer), state.cache.layer(layer), strict=True):
                    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))
        self.grow(again)

    @precondition(lambda self: self.nodes)
    @rule(data=st.data(), with_cache=st.booleans())
    def save_and_load(self, data, with_cache):
        state = self.nodes[self.pick(data)]
        path = Path(self.folder.name) / "state"
        save_state(state, path, with_cache)
        loaded = load_state(path, MODEL, CONDITIONING)
        compared = state if with_cache and state.cache is not None and state.cache.chunks else state.without_cache()
        ours, theirs = content(loaded), content(compared)
        assert equal(ours[0], theirs[0]) and equal(ours[2:], theirs[2:])
        assert (loaded.cache is None) == (compared.cache is None)
        if with_cache and not state.finished:
            on, expected = sample(loaded, LAST), sample(compared, LAST)
            assert compared.cache is None or equal(content(on), content(expected))
        self.grow(loaded)

    @invariant()
    def every_earlier_state_is_unchanged(self):
        for state, held in zip(self.nodes, self.held, strict=True):
            assert equal(content(state), held)


TestTrees = Trees.TestCase
TestTrees.settings = settings(
    max_examples=40, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
