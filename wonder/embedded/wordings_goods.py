"""How people put what shipping, sales and returns settle: wordings to expand (see `grammar`)."""

from typing import Final

SHIPPING: Final[tuple[str, ...]] = (
    "where is <my> <parcel>?",
    "where's <my> <parcel>[, it should have come <ago>| at the moment| please||]?",
    "[any news on|any update on|what happened to|what's going on with|what is the status of|I am asking about] [my|"
    "our] [parcel|package|order|delivery|shipment|{order}]?",
    "<my> <parcel> [hasn't|has not|did not|didn't|never] [arrived|come|arrive|turned up|shown up|reached me|reached us|"
    "been delivered|got here|come through|show up]<now>.",
    "[parcel|package|order|delivery|{order}|{item}] [not arrived|not here|missing|late|lost|delayed|not delivered|not "
    "received|nowhere to be seen|overdue]<now>.",
    "I [have not|haven't|did not|didn't|never|still haven't] [received|got|get|receive|gotten|seen] <my> [parcel|"
    "package|order|delivery|shipment|{order}|{item}]<now>.",
    "[still|I am still|we're still|I'm] waiting for <my> [parcel|package|order|delivery|shipment|{item}|{order}]<now>.",
    "I [ordered|bought] [a {item}|{count} things|it|this|something] <ago> and [it still hasn't come|nothing has "
    "arrived|it is still not here|have not got it|it never arrived|it is late|I am still waiting].",
    "[it's|it has] been [{count} days|two weeks|a month|three weeks|ages|ten days] [and|since I ordered and] [nothing "
    "came|no parcel|still no delivery|my order is not here|nothing has been delivered|the package isn't here].",
    "[when|what day|what time] [will|does|is] <my> <parcel> [arrive|come|get here|be delivered|be here|due|get to me|"
    "reach me|ship|leave|going to be delivered]?",
    "when [will|do|are] you [going to |] [ship|send out|dispatch|deliver|post|send] <my> [order|parcel|{item}|"
    "{order}]?",
    "[has|have] [my order|{order}|it|the {item}|our goods] [been shipped|been sent|been dispatched|shipped|left the "
    "warehouse|left yet|gone out|been posted][ yet|]?",
    "[how long|how many days|how much time] [does|will|is] [delivery|shipping|the shipping|the delivery|postage] [take|"
    "to {city} take|usually take|abroad take|by courier take]?",
    "[do you|can you|could you] [deliver|ship|send|post] [to {city}|abroad|to another country|on Saturdays|on weekends|"
    "in the evening|to a parcel shop|to an island|to my office|worldwide|to a different address|express]?",
    "[what|how much] [does shipping cost|is the delivery charge|is postage|are the shipping costs|do you charge for "
    "delivery|does express delivery cost][ to {city}|]?",
    "the [tracking|tracking page|tracking link|tracking number|tracking info|shipment status] [says|shows|has shown|"
    "still shows] ['in transit'|delivered|on its way|no information|pending|nothing|'out for delivery'][<now>| but "
    "nothing came].",
    "[tracking|my tracking|the tracking|the status] [hasn't|has not] [changed|been updated|moved|updated] [for days|"
    "for {count} days|since {day}|for a week].",
    "[the|my] tracking [number|code|link|id] [does not work|is wrong|is invalid|isn't found|leads nowhere|doesn't "
    "exist|shows nothing].",
    "[I need|please send me|can I have|where do I find|I never got] [the|a|my] tracking [number|code|link|id].",
    "[can I|how do I|please|I want to|I need to|can you|is it too late to] [change|update|correct|edit] [the|my] "
    "[delivery address|shipping address|address for {order}|delivery date|delivery day|drop-off place|street on the "
    "parcel].",
    "[I moved|we have moved|I entered the wrong address|I made a mistake in the address|I typed the wrong street], "
    "[please|can you] [send|deliver|redirect|forward] [{order}|my order|the parcel|it] to {city}.",
    "the <courier> [left|put|dumped|threw] <my> <parcel> [in the rain|at the wrong house|outside|with a neighbour|at "
    "the wrong door|in front of the door|over the fence|in the hallway|somewhere else].",
    "the <courier> [never came|did not come|didn't ring|did not ring the bell|didn't show up|didn't knock|was rude|"
    "drove past|says nobody was home|could not find our house|went to the wrong address]<now>.",
    "<my> <parcel> [was|has been|got|is being] [delivered|sent|taken|dropped off|brought] to [the wrong address|my "
    "neighbour|the wrong house|someone else|another street|my old address|the wrong city|a stranger].",
    "[it|the tracking|your mail|the app] says [delivered|it was delivered|my parcel arrived] but [I have nothing|"
    "nothing is here|there is no package|I never got it|it's not here|nobody gave me anything].",
    "[I was|we were|I will be|nobody is|nobody was|I won't be] [at home|home|there|in] [all day|on {day}|when the "
    "courier came|when it came]<now>, [please deliver again|can you redeliver|please bring it another day|nothing was "
    "delivered].",
    "[can you|please|could you] [redeliver|deliver again|bring it|deliver it|leave the parcel|drop the package] [on "
    "{day}|in the evening|next week|tomorrow|with my neighbour|at the back door|at the post office|after six].",
    "[I got|there was|found] a [card|note|slip] [from the courier|saying they missed me|about a missed delivery], "
    "[where is my parcel|can you deliver again|when will they come back]?",
    "[only|just] [half|one|part|two boxes|some] of [my|our|the] [order|delivery|shipment|items] [came|arrived|was "
    "delivered|was in the box|has arrived].",
    "[{count}|two|three|some|several] [items|things|boxes|pieces] are missing from [my|our|the] [delivery|parcel|"
    "shipment|order].",
    "<my> <parcel> is [stuck|held|sitting|waiting] [at customs|in customs|at the depot|in {city}|at the warehouse|at "
    "the post office|in a depot]<now>.",
    "<my> <parcel> [got lost|is lost|was lost|has disappeared|was stolen from my porch|seems lost|vanished] [in the "
    "post|on the way|in transit|].",
    "[will|does|can] [it|my order|the {item}|the delivery] [arrive|come|be here|get here|be delivered] [before {day}|"
    "by {day}|in time for the party|before Christmas|in time|this week|tomorrow]?",
    "[the delivery|your shipping|this delivery] is [so slow|late|very late|taking too long|delayed again|overdue].",
    "[can I|can my brother|may I] [pick up|collect] [my order|the parcel|it] [at the depot|from the warehouse|in "
    "{city}|myself|at the post office]?",
    "[someone|a neighbour|somebody else|a stranger] [took|signed for|received|got|has] <my> [parcel|package|delivery].",
    "[please|can you] [hurry up with|speed up|rush|expedite] [the delivery|my shipment|shipping of {order}|my order].",
    "[I won't be home|we are on holiday|nobody is home], [please|can you] [hold|postpone|delay|move] the delivery "
    "[until {day}|to next week|to {month}|].",
)
SALES: Final[tuple[str, ...]] = (
    "[how much|what] [is|does|would|will] [the {item}|a {item}|it|one|the pro plan|your service|the business plan|the "
    "premium version] [cost|be|cost per month|cost for {count} people|cost in total]?",
    "[how much|what price] [for|would it be for|is it for|do you charge for] {count} [units|pieces|people|users|"
    "licences|seats|{item}s]?",
    "[what is|what's|can you tell me|I'd like to know] the price [of|for] [the {item}|{count} {item}s|a {item}|the pro "
    "plan|the bigger package|a licence]?",
    "[price|prices|price list|quote|quotation|offer] [for {count} {item}s|for a {item}|please|needed|request|for our "
    "office|for a school][?|.|].",
    "[can you|could you|please] [send|give|make|prepare] [me|us] [a quote|an offer|a quotation|a price list|a price|"
    "your catalogue|a brochure|an estimate] [for {count} {item}s|for a {item}|for {count} users|for our company|].",
    "[I need|we need|I'd like|we would like|looking for] [a quote|an offer|a quotation|a price|prices] [for {count} "
    "<units>|for a {item}|for a large order|for our office].",
    "[do you|can you|will you] [have|offer|give|do] [a discount|discounts|any discounts|a student discount|special "
    "prices|a better price|bulk prices|any deals|a coupon|vouchers] [for students|for schools|for {count} <units>|for "
    "charities|for new customers|for families|if I buy two|]?",
    "[is there|are there|any chance of] [a discount|a deal|any offers|a special offer|a cheaper version|a family plan|"
    "a student price|a sale][ for {count} <units>| for schools| at the moment| soon||]?",
    "[discount|deal|special price|bulk price] for [{count} <units>|students|schools|large orders|teachers|companies]?",
    "[I want to|I would like to|I'd like to|we want to|we'd like to|I am looking to|we plan to|I need to] [buy|"
    "purchase|order] [a {item}|{count} {item}s|one|{count} units|a licence|a gift card|another {item}|a second one|one "
    "for my mother].",
    "[I am|we are|my company is|I'm|we're] [interested in|thinking about|thinking of|considering|looking at] [buying|"
    "ordering|getting|purchasing|your|] [a {item}|the {item}|the business plan|your products|the premium plan|a larger "
    "plan].",
    "[where|how] [can I|do I|can we] [buy|order|purchase|get] [a {item}|one|your {item}|your products|a gift card|it "
    "in {city}]?",
    "[is|are] [the {item}|it|this|the red one|the white version|that model] [available|in stock|still available|on "
    "sale|sold in {city}|still sold|for sale][ in green| in {month}| in other colours||]?",
    "when [will|does|is] [the {item}|it|the new model|the black one] [be back in stock|come back in stock|be available|"
    "be in stock|available again|come out|be released]?",
    "[{item}|new model|blue version|large size] [in stock|available|for sale|on sale][ soon| in {month}||]?",
    "[which|what] [{item}|model|plan|version|package] [would you recommend|do you recommend|is best|is right|would "
    "suit us|should I buy|should I choose|would you suggest|fits] [for a small office|for beginners|for a family|for "
    "{count} people|for us|for me|]?",
    "[can you|could you|please] [recommend|suggest|advise me on] [a {item}|a plan|the right {item}|the best model|"
    "something] for [a small flat|our office|beginners|a gift|a big family|our team].",
    "what [is|'s|are] the difference[s|] between [the basic and the pro plan|the two {item}s|the {item} and the bigger "
    "one|your plans|the small and the large model|standard and premium]?",
    "what [is|comes|do I get|features are] [included in|with|in] [the pro plan|the premium plan|the {item}|the basic "
    "package|the business version|the larger plan]?",
    "[I|we] [want to|would like to|'d like to|need to|might] [upgrade|downgrade|switch|move|change] [to the pro plan|"
    "to a bigger plan|to premium|our plan|from basic to pro|to the business version|to a smaller plan].",
    "[how do I|can I|what does it cost to|how can we] [upgrade|downgrade|switch] [to pro|my plan|to a larger plan|to "
    "premium|to the yearly plan|]?",
    "[do you|can I|is there|can we] [offer|get|have|try|a] [a free trial|a trial|a demo|a test version|trial period|"
    "sample|it for free|it before buying]?",
    "[can|could] [someone|somebody|you|a salesperson|one of your people] [show us a demo|call us about prices|give us "
    "a presentation|come by and show the {item}|talk to us about buying]?",
    "[I'd like|we want|please arrange|can I get] a [demo|trial|test account|presentation|sample] [of the {item}|of "
    "your software|before we buy|for our team|].",
    "[do you|can I] [sell|buy|have|order] [gift cards|gift vouchers|vouchers|spare parts|accessories|{item}s|"
    "refurbished {item}s|used {item}s|bigger {item}s]?",
    "[does|will] [the {item}|your {item}|the new model|it] [come|be sold|exist] in [other colours|red|black|a larger "
    "size|white|blue|a bigger version]?",
    "[we|I] [want to|would like to] [become|be] [a reseller|a dealer|a distributor|a partner|your partner in {city}].",
    "[do you have|what are|can I see|send me] [your|a|any] [prices|price list|plans|pricing|rates|catalogue|product "
    "range|conditions for resellers]?",
    "[who|whom] [do I talk to|can I talk to|should I contact] about [buying|a large order|prices|a quote|becoming a "
    "reseller|a big purchase]?",
    "[we|our school|our company|my firm|our club] [needs|need|is looking for|wants|are looking for] {count} [{item}s|"
    "units|licences|seats][, what would that cost?|, can you make an offer?|, any discount?|, what's your price?].",
    "[looking to|planning to|going to] buy [a {item}|{count} {item}s|ten {item}s|several], [any deals|any discount|"
    "what is the price|what would it cost|is it in stock]?",
    "[is there|do you have] a [cheaper|bigger|smaller|newer|better|larger] [model|version|plan|{item}|option|package][ "
    "for families| for small firms||]?",
    "[what|which] [sizes|colours|models|plans|options|versions] [do you have|are available|do you sell|can I order|are "
    "there]?",
    "[does|do] [the {item}|the premium plan|your {item}s] [have|include|come with|support] [a warranty|a timer|free "
    "support|a case|more storage|a charger|two years of warranty]?",
    "I [saw|found|read about] [your {item}|your offer|the {item} in an advert|your sale] and [want to buy it|would "
    "like to know the price|wonder what it costs|want to order one].",
    "[is the {item}|is your {item}|is it] [worth the money|good for beginners|suitable for children|better than the "
    "old model|big enough for a family]?",
    "[wholesale|bulk order|large order|reseller|purchase] [enquiry|inquiry|of {count} {item}s|question|prices|"
    "request].",
)
RETURNS: Final[tuple[str, ...]] = (
    "I <want> [return|send back|give back|bring back|exchange|swap] [the {item}|{order}|it|my order|this|what I bought|"
    "my new {item}|these shoes|the jacket|something]<now>.",
    "<howto> [return|send back|exchange|give back|swap|bring back] [the {item}|{order}|it|my order|this|something|an "
    "item|a product|an unwanted gift|these]?",
    "[can I|could I|may I|is it possible to|am I allowed to] [return|send back|exchange|give back|swap|bring "
    "back] [the {item}|{order}|it|this|an opened box|a gift|something I bought in {month}|a used {item}] [after "
    "{count} days|without the box|without a receipt|for another one|for a different size|]?",
    "[return|exchange|sending back|swap] [{order}|the {item}|please|request|wanted|of my {item}|needed][, wrong size|, "
    "too small|, changed my mind|, how?||].",
    "[the {item}|it|the jacket|the shirt|the dress|the coat|the pair of shoes|my new {item}] [is|was|are|turned out] "
    "too [small|big|large|tight|long|short|wide|narrow][, I'd like another size|, please exchange it|, can I swap it?|"
    ", I want to send it back||].",
    "[wrong|bad|different] [size|colour|color|model|item|product] [received|sent|delivered|in the box|, please "
    "exchange|, I want to return it].",
    "[you|your shop|your warehouse] sent [me|us] the wrong [size|colour|color|model|{item}|shirt|version|thing][, can "
    "I swap it?|, please exchange it|, I'd like to return it|, I want to send it back].",
    "I [ordered|bought|chose|picked] the wrong [size|colour|color|model|{item}|version|one] [and want to exchange it|"
    "and want to return it|, can I swap it|by mistake and want to send it back|, how do I exchange it].",
    "I [changed my mind|don't want it any more|do not need it any more|don't like it|have no use for it|regret buying "
    "it|no longer need it][ and want to return it| and want to send it back|, where do I send it?|, can I send it "
    "back?||].",
    "I <dont> [like|want|need] [the {item}|the colour|the fabric|it|this {item}] [and want to return it|so I'd like to "
    "send it back|, can I return it|and would like to exchange it|, please take it back].",
    "[it|the {item}] [is not|isn't|was not|looks nothing like] [what I expected|what I ordered|as described|like the "
    "pictures|what I wanted|the right fit][, I want to return it|, so it goes back|, can I send it back||].",
    "[it does not|it doesn't|the {item} doesn't|the {item} does not] [fit|match my room|suit me|fit me|go with my "
    "kitchen|fit through the door][, I want to return it|, can I exchange it|, how do I send it back||].",
    "[please|can you|could you] [exchange|swap|replace] [it|the {item}|them|this] [for|with] [a larger size|a smaller "
    "size|a bigger one|another colour|the blue one|a size M|a medium|a different model].",
    "[I need|please send|where is|I never got|can you send me|where do I find|how do I print] [a|the|my] return[s|] "
    "[label|form|slip|code|address|number|sticker]<now>.",
    "[the|my|your] return[s|] [label|form|code|slip|barcode] [is missing|does not print|cannot be printed|doesn't work|"
    "was not in the box|has expired|is wrong|was lost|is not accepted].",
    "[what is|what's|how does|can you explain] your return[s|] [policy|policy work|process|period|window|rules|"
    "conditions|address]?",
    "[how long|how many days|until when|how much time] [do I have|have I got|can I wait|is there] to [return|send back|"
    "exchange] [it|something|an item|the {item}|a purchase]?",
    "[is it|am I|is it not] too late to [return|exchange|send back|give back] [the {item}|it|{order}|something from "
    "{month}|something]?",
    "[where|to which address] [do I|should I|can I] [send|bring|drop off|post|take|hand in] [the return|my return|the "
    "{item} I am returning|it back|the thing I don't want|a return parcel]?",
    "[who|do I|must I] [pays|pay] [for the return|for returns|return postage|for sending it back|the return shipping|"
    "to send it back]?",
    "[are returns|is the return|is sending it back|is an exchange] free[ of charge|]?",
    "I [sent|mailed|posted|returned|shipped] [the {item}|it|{order}|my return|everything] back <ago>, [did you get it|"
    "have you received it|have you got my return|has my return arrived|when do I get the exchange]?",
    "[has|did] [my return|the return|the {item} I sent back|the item I returned] [arrived|arrive|reached you|been "
    "processed|get there|been received]?",
    "[the|my] [exchange|swap|return|replacement for the {item} I sent back] [has not come|has not been processed|is "
    "taking too long|was refused|was rejected|is still pending]<now>.",
    "[can you|please|could you|when will you] [pick up|collect|fetch] [my return|the {item} I want to return|the "
    "return|the {item} I am sending back].",
    "[the post office|the shop|the counter|the parcel shop|the driver] [refused|did not take|won't accept|rejected] my "
    "return[ed {item}|][ because of the label||].",
    "[do I need|must I have|is it a problem without] [the original packaging|the box|the original box|a receipt|the "
    "tags|the packaging] [to return it|to send it back|for a return|for an exchange|to exchange it]?",
    "I [opened|threw away|lost|no longer have] [the box|the packaging|the original box|the tags], can I [still|] "
    "[return it|send it back|exchange it|give it back]?",
    "[I|we|my wife|my son] [ordered|bought|got] [two|one too many|the same {item} twice|it twice|two by mistake] and "
    "[want|would like] to [send one back|return one|give one back].",
    "[it|the {item}] was a [gift|present|birthday present] [and I'd like to exchange it|, can I return it|but I "
    "already have one, can it go back|and does not fit, can I swap it].",
    "[we|I] already [have|had|own] one, [so I want to return it|can I send this back|please take it back|can I return "
    "the {item}].",
    "[please|can you|will you] [take|accept] [it|the {item}|my {item}|them|these] back[ please|]?",
    "[I'm|I am|we are] [sending|returning|shipping|bringing] [it|the {item}|{order}|them] back[ tomorrow| today| "
    "because it is too big| because I don't like it||].",
    "[I|we] want [another|a different|a smaller|a bigger|a larger] [size|colour|one] instead[ of the {item}| of this "
    "one| of what I got||].",
    "[the {item}|it|the sweater] [should|must|has to|needs to] go back[ to you|][, it is too small|, please send a "
    "label|, how do I do that?||].",
    "[can I|could I|may I] [swap|exchange|change] [this|it|the {item}|the {item} I bought|my {item}] for [a medium|a "
    "larger one|a size {count}|another colour|the black one|a different one]?",
)
